"""Authorization requests that wait for the user's decision.  A random handle identifies each in page URLs and forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import PARKED_LIFE, REQUEST_LIFE, SECOND, SmartContext, digest, new_secret
from fhir_server.smart.core.persons import EncounterChoice, RecordChoice
from fhir_server.smart.core.scopes import resource_scopes

_KIND: Final = "request"
RECORD: Final = "/oauth/record"
VISIT: Final = "/oauth/visit"
CONSENT: Final = "/oauth/consent"


class AuthorizationRequest(msgspec.Struct, frozen=True):
    """A validated authorization request and the user's choices so far.

    ``pairs``      the parameters as received
    ``scope``      the requested scopes that the client may have
    ``created``    in microseconds
    ``username``   the user who chose the record
    ``encounter``  the chosen visit; "" for no particular visit, None before the choice
    ``hinted``     the account that must answer, by its subject (``id_token_hint``); "" for any
    """

    pairs: tuple[tuple[str, str], ...]
    client_id: str
    redirect_uri: str
    scope: str
    created: int
    username: str | None = None
    patient: str | None = None
    encounter: str | None = None
    hinted: str = ""

    def parameter(self, name: str) -> str:
        """Return a parameter of the request, or ""."""
        return dict(self.pairs).get(name, "")

    def needs_record(self, session: Session) -> bool:
        """Whether the user must choose a patient: one must be in context, and no launch handle names one.

        A token applies to one user and one record, so a patient or proxy chooses a record for ``user/`` scopes too.
        """
        levels = {scope.level for scope in resource_scopes(self.scope)}
        contexts = {"launch/patient", "launch/encounter"} & set(self.scope.split())
        needed = "patient" in levels or bool(contexts) or (bool(levels) and session.user.role == "patient")
        return needed and not self.parameter("launch")

    @property
    def needs_encounter(self) -> bool:
        """Whether the user must choose a visit: the app requests one, and no launch handle names one."""
        return "launch/encounter" in self.scope.split() and not self.parameter("launch")

    @property
    def requires_fresh_sign_in(self) -> bool:
        """Whether the app limits how old the sign-in may be (``prompt``, ``max_age``; OpenID Connect Core 3.1.2.1)."""
        return self.oldest_sign_in > 0

    @property
    def oldest_sign_in(self) -> int:
        """The instant at or after which the person must have signed in, in microseconds; 0 for any time."""
        if {"login", "select_account"} & set(self.parameter("prompt").split()):
            return self.created
        return self.created - int(self.parameter("max_age")) * SECOND if self.parameter("max_age") else 0

    def accepts_session(self, session: Session) -> bool:
        """Whether the person has signed in recently enough for this request, and is who the app expects."""
        return session.authenticated >= self.oldest_sign_in and self.hinted in ("", session.user.subject)

    def is_record_chosen(self, session: Session) -> bool:
        """Whether the signed-in user has made all choices of record and visit that the request needs."""
        return self.next_page(session) == CONSENT

    def next_page(self, session: Session) -> str:
        """Return the path of the next page for the signed-in user."""
        if not self.needs_record(session):
            return CONSENT
        if self.patient is None or self.username != session.user.username:
            return RECORD
        return VISIT if self.needs_encounter and self.encounter is None else CONSENT


@dataclass(frozen=True, slots=True)
class SignedInRequest:
    """An authorization request that a signed-in user is answering, with its handle."""

    handle: str
    authorization: AuthorizationRequest
    session: Session


@dataclass(frozen=True, slots=True)
class RequestState:
    """What is stored for the handle that a page or form names, and the browser's session."""

    handle: str
    authorization: AuthorizationRequest | None
    session: Session | None

    @property
    def signed_in(self) -> SignedInRequest | None:
        """The request and the session, if both exist."""
        if self.authorization is None or self.session is None:
            return None
        return SignedInRequest(self.handle, self.authorization, self.session)


async def save(smart: SmartContext, authorization: AuthorizationRequest) -> str:
    """Store a new request and return its handle.  It expires soon, unless somebody signs in (:func:`keep`)."""
    handle, expires = new_secret(), authorization.created + PARKED_LIFE
    await smart.store.key_values.put(_KIND, digest(handle), msgspec.json.encode(authorization), expires)
    return handle


async def keep(smart: SmartContext, handle: str) -> None:
    """Give the request, if it exists, the time that a person needs who has signed in."""
    text = await smart.store.key_values.get(_KIND, digest(handle), smart.now())
    if text is not None:
        expires = msgspec.json.decode(text, type=AuthorizationRequest).created + REQUEST_LIFE
        await smart.store.key_values.replace_value(_KIND, digest(handle), text, text, expires)


async def find(smart: SmartContext, handle: str) -> AuthorizationRequest | None:
    """Return the request of this handle; None if it was answered or has expired."""
    text = await smart.store.key_values.get(_KIND, digest(handle), smart.now())
    return None if text is None else msgspec.json.decode(text, type=AuthorizationRequest)


async def consume(smart: SmartContext, handle: str) -> bool:
    """Remove the request.  Of several concurrent calls, one returns True."""
    return await smart.store.key_values.pop(_KIND, digest(handle), smart.now()) is not None


async def choose(smart: SmartContext, handle: str, authorization: AuthorizationRequest, session: Session, patient: str) -> None:
    """Store the user's choice of record.  Clears an earlier choice of visit."""
    chosen = msgspec.structs.replace(authorization, username=session.user.username, patient=patient, encounter=None)
    await _put(smart, handle, chosen)


async def choose_encounter(smart: SmartContext, handle: str, authorization: AuthorizationRequest, encounter: str) -> None:
    """Store the user's choice of visit; "" for no particular visit."""
    await _put(smart, handle, msgspec.structs.replace(authorization, encounter=encounter))


async def encounters(smart: SmartContext, authorization: AuthorizationRequest, session: Session) -> dict[str, EncounterChoice]:
    """Return the visits of the chosen record that the user may see, by Encounter id."""
    found = await smart.encounters(session.user.person(), authorization.patient or "", frozenset(), smart.now())
    return {choice.encounter: choice for choice in found}


async def choices(smart: SmartContext, session: Session) -> dict[str, RecordChoice]:
    """Return the records that the user may open now, by Patient id.  Not for a clinician, whose are searched."""
    return {choice.patient: choice for choice in await smart.records(session.user.person(), smart.now())}


async def _put(smart: SmartContext, handle: str, authorization: AuthorizationRequest) -> None:
    expires = authorization.created + REQUEST_LIFE
    await smart.store.key_values.put(_KIND, digest(handle), msgspec.json.encode(authorization), expires)
