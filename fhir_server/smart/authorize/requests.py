"""Authorization requests on their way through the pages, behind a random handle."""

from __future__ import annotations

import msgspec

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import REQUEST_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.persons import EncounterChoice, RecordChoice
from fhir_server.smart.core.scopes import resource_scopes

_KIND = "request"
RECORD = "/oauth/record"
VISIT = "/oauth/visit"
CONSENT = "/oauth/consent"


class AuthorizationRequest(msgspec.Struct, frozen=True):
    """A checked authorization request, and what has been decided of it: by whom, for which record.

    ``pairs`` are its parameters as received, ``scope`` what the client may have of the scopes asked; ``encounter`` is the
    visit chosen, "" for none in particular, None while nobody has been asked.
    """

    pairs: tuple[tuple[str, str], ...]
    client_id: str
    redirect_uri: str
    scope: str
    created: int
    username: str | None = None
    patient: str | None = None
    encounter: str | None = None

    def parameter(self, name: str) -> str:
        return dict(self.pairs).get(name, "")

    def needs_record(self, session: Session) -> bool:
        """Whether a patient must be in context, and is not given by a launch handle.

        One token acts for one person in one record; so who acts for others chooses a record for ``user/`` scopes too.
        """
        levels = {scope.level for scope in resource_scopes(self.scope)}
        contexts = {"launch/patient", "launch/encounter"} & set(self.scope.split())
        wanted = "patient" in levels or bool(contexts) or (bool(levels) and session.user.role == "patient")
        return wanted and not self.parameter("launch")

    @property
    def needs_encounter(self) -> bool:
        """Whether the app asks for a visit in context that no launch handle gives."""
        return "launch/encounter" in self.scope.split() and not self.parameter("launch")

    @property
    def requires_fresh_sign_in(self) -> bool:
        """Whether the app insists on a sign-in made for its request (OpenID Connect 3.1.2.1)."""
        return "login" in self.parameter("prompt").split() or bool(self.parameter("max_age"))

    def accepts_session(self, session: Session) -> bool:
        """Whether this sign-in will do."""
        return session.started >= self.created or not self.requires_fresh_sign_in

    def is_record_chosen(self, session: Session) -> bool:
        """Whether the person now signed in has settled for whose record, and for which visit in it, this is."""
        return self.next_page(session) == CONSENT

    def next_page(self, session: Session) -> str:
        """Where the person now signed in has to go next."""
        if not self.needs_record(session):
            return CONSENT
        if self.patient is None or self.username != session.user.username:
            return RECORD
        return VISIT if self.needs_encounter and self.encounter is None else CONSENT


async def save(smart: SmartContext, pending: AuthorizationRequest) -> str:
    """A handle for this request."""
    handle = new_secret()
    await _put(smart, handle, pending)
    return handle


async def find(smart: SmartContext, handle: str) -> AuthorizationRequest | None:
    text = await smart.store.key_values.get(_KIND, digest(handle), smart.now())
    return None if text is None else msgspec.json.decode(text, type=AuthorizationRequest)


async def consume(smart: SmartContext, handle: str) -> bool:
    """End this request; True for the one caller that does."""
    return await smart.store.key_values.pop(_KIND, digest(handle), smart.now()) is not None


async def choose(smart: SmartContext, handle: str, pending: AuthorizationRequest, session: Session, patient: str) -> None:
    """Note that this person wants this record opened."""
    chosen = msgspec.structs.replace(pending, username=session.user.username, patient=patient, encounter=None)
    await _put(smart, handle, chosen)


async def choose_encounter(smart: SmartContext, handle: str, pending: AuthorizationRequest, encounter: str) -> None:
    """Note that the person wants the app opened on this visit ("": on none in particular)."""
    await _put(smart, handle, msgspec.structs.replace(pending, encounter=encounter))


async def encounters(smart: SmartContext, pending: AuthorizationRequest, session: Session) -> dict[str, EncounterChoice]:
    """The visits this person may hand to the app from the record chosen, by id."""
    found = await smart.encounters(session.user.person(), pending.patient or "", frozenset(), smart.now())
    return {choice.encounter: choice for choice in found}


async def choices(smart: SmartContext, session: Session) -> dict[str, RecordChoice]:
    """The records this person may open now, by patient id."""
    return {choice.patient: choice for choice in await smart.records(session.user.person(), smart.now())}


async def _put(smart: SmartContext, handle: str, pending: AuthorizationRequest) -> None:
    expires = pending.created + REQUEST_LIFE
    await smart.store.key_values.put(_KIND, digest(handle), msgspec.json.encode(pending), expires)
