"""What a consent page is about, read once for one request: the client, the record, the visit, and the scopes that have an effect.

The page's form sends back a digest of it (:attr:`ConsentState.shown`).  An answer counts only if it is the digest of what is true
now, so that nothing is allowed that the page did not show: another tab may have chosen another record, the app may have been
renamed, or the person's access may have changed since.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client, shown_hosts
from fhir_server.smart.core import records
from fhir_server.smart.core.context import GRANT_LIFE, SmartContext, digest
from fhir_server.smart.core.persons import RecordChoice
from fhir_server.smart.tokens import launch
from fhir_server.smart.tokens.launch import Launch

_AS_ALLOWED: Final = "app-as-allowed"
_LAUNCHED_VISIT: Final = "The visit you have open"


@dataclass(frozen=True, slots=True)
class ConsentState:
    """What is asked of the person now.

    ``choice``     the record, if one is chosen or launched and the person may open it
    ``launched``   the EHR launch, if the request has one
    ``visit``      the visit in context as (id, words); None without one
    ``effective``  the requested resource scopes, with the part of each that has an effect for the person in this record
    """

    authorization: AuthorizationRequest
    session: Session
    client: Client | None
    choice: RecordChoice | None
    launched: Launch | None
    visit: tuple[str, str] | None
    effective: Mapping[str, tuple[str, ...]]

    @property
    def patient(self) -> str | None:
        """The id of the record for which consent is asked; None for a token that opens several records."""
        return self.launched.patient if self.launched else self.choice.patient if self.choice else None

    @property
    def shown(self) -> str:
        """A digest of all of this, for this browser session."""
        launched = (self.launched.patient, self.launched.encounter, self.launched.parameters) if self.launched else None
        client = (self.client.client_id, self.client.identity) if self.client else None
        about = (client, self.authorization.redirect_uri, self.authorization.scope, self.choice, launched, self.visit, dict(self.effective))
        text = msgspec.json.encode((self.session.user.username, about), order="deterministic")
        return hmac.digest(self.session.token.encode(), text, "sha256").hex()

    def was_shown(self, sent: str) -> bool:
        """Whether a form with this digest showed what is true now."""
        return hmac.compare_digest(self.shown.encode(), sent.encode())


async def read(smart: SmartContext, authorization: AuthorizationRequest, session: Session) -> ConsentState:
    """Read what the page shows, or what an answer is about."""
    client = await clients.find(smart.store, authorization.client_id)
    handle = authorization.parameter("launch")
    launched = await launch.find(smart.store, handle, smart.now()) if handle else None
    choice = await _choice(smart, authorization, session, launched)
    patient = launched.patient if launched else choice.patient if choice else None
    visit = await _visit(smart, session, patient, launched.encounter if launched else authorization.encounter)
    if launched and launched.encounter and visit is None:
        visit = (launched.encounter, _LAUNCHED_VISIT)
    effective = await smart.effective_scopes(session.user.person(), patient, authorization.scope, smart.now())
    return ConsentState(authorization, session, client, choice, launched, visit, effective)


async def _choice(
    smart: SmartContext, authorization: AuthorizationRequest, session: Session, launched: Launch | None
) -> RecordChoice | None:
    if authorization.parameter("launch"):
        return await records.find(smart, session.user.person(), launched.patient) if launched else None
    if not authorization.patient or not authorization.is_record_chosen(session) or not authorization.needs_record(session):
        return None
    return await records.find(smart, session.user.person(), authorization.patient)


async def _visit(smart: SmartContext, session: Session, patient: str | None, encounter: str | None) -> tuple[str, str] | None:
    """The visit, if the person still may see it."""
    if not patient or not encounter:
        return None
    visits = await smart.encounters(session.user.person(), patient, frozenset(), smart.now())
    return next(((visit.encounter, visit.words) for visit in visits if visit.encounter == encounter), None)


async def remember_identity(smart: SmartContext, user: User, client: Client) -> None:
    """Note how the app was called when the person allowed it."""
    value = msgspec.json.encode(client.identity)
    await smart.store.key_values.put(_AS_ALLOWED, _key(user, client), value, smart.now() + GRANT_LIFE, account_family(user))


async def changed_since(smart: SmartContext, user: User, client: Client | None) -> dict[str, str] | None:
    """The name and hosts of the app when the person last allowed it, if they are others now; else None."""
    text = await smart.store.key_values.get(_AS_ALLOWED, _key(user, client), smart.now()) if client else None
    before = () if text is None else msgspec.json.decode(text, type=tuple[str, ...])
    if client is None or not before or before == client.identity:
        return None
    return {"name": before[0], "hosts": shown_hosts(before)}


def _key(user: User, client: Client) -> str:
    return digest(f"{user.subject}:{client.client_id}")
