"""The consent step: what the page offers, and what the person's answer grants."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import category_scopes, requests, sensitive_categories
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.authorize.scope_wording import wording
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import DAY, GRANT_LIFE, HOUR, REFRESH_LIFE, SECOND, SESSION_LIFE, SmartContext, new_secret
from fhir_server.smart.core.persons import RecordChoice, own_reference
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import launch
from fhir_server.smart.tokens.grants import Decision
from fhir_server.smart.tokens.launch import Launch
from fhir_server.web.forms import Form

OFFLINE: Final = "offline_access"
ONLINE: Final = "online_access"


class UnclearAnswerError(ValueError):
    """An answer that cannot be acted on, worded for the person."""


async def requested_scopes(smart: SmartContext, record: AuthorizationRequest) -> dict[str, Any]:
    """Who asks, for the pages: the registered name and the host the answer goes to."""
    client = await clients.find(smart.store, record.client_id)
    return {
        "client_name": client.name if client else record.client_id,
        "client_host": client.redirect_host(record.redirect_uri) if client else "",
    }


async def consent_offer(smart: SmartContext, record: AuthorizationRequest, session: Session) -> dict[str, Any]:
    """What is asked, for the page: for whose record, each resource scope in words, and the rest that needs saying."""
    named = record.scope.split()
    choice, handed = await _choice(smart, record, session), await _launch(smart, record)
    return {
        "choice": choice,
        "launched": handed is not None and choice is None,
        "scopes": [(scope.text, wording(scope, session.user.role)) for scope in resource_scopes(record.scope)],
        "parts": category_scopes.parts(record.scope),
        "sensitive": sensitive_categories.WORDS if _may_withhold(record, session) else {},
        "identity": "openid" in named or "fhirUser" in named,
        "offline_days": REFRESH_LIFE // DAY if OFFLINE in named else 0,
        "offline_years": GRANT_LIFE // (365 * DAY),
        "connected": f"{smart.origin}/apps",
        "online_hours": SESSION_LIFE // HOUR if ONLINE in named and OFFLINE not in named else 0,
    }


def ticked_scopes(record: AuthorizationRequest, form: Form | None) -> frozenset[tuple[str, str]]:
    """What is ticked on the page, as a form sends it: at first all that is asked, and nothing kept back; then what was sent."""
    if form is None:
        return frozenset(("scope", scope) for scope in record.scope.split())
    return frozenset(pair for pair in form if pair[0] in ("scope", "part", "withhold"))


async def decision(smart: SmartContext, record: AuthorizationRequest, session: Session, form: Form) -> Decision | None:
    """What an "allow" grants; None where it may not be given to this person.  Raises Unclear."""
    scope = _kept(record, form)
    choice, handed = await _choice(smart, record, session), await _launch(smart, record)
    if record.parameter("launch") and (handed is None or handed.username != session.user.username):
        return None
    if record.needs_record(session) and choice is None:
        raise UnclearAnswerError("The record is no longer one that you can open. Go back and choose again.")
    patient = handed.patient if handed else choice.patient if choice else None
    withheld = _withheld(record, session, form)
    encounter = await _shown(smart, session, patient, handed.encounter if handed else record.encounter, withheld)
    named = set(scope.split())
    token_grant = TokenGrant(
        client_id=record.client_id,
        scope=scope if encounter else _without(scope, "launch/encounter"),
        family=new_secret(),
        username=session.user.username,
        patient=patient,
        encounter=encounter,
        fhir_user=(choice.fhir_user if choice else "") or own_reference(session.user.person()),
        launch=({"need_patient_banner": True} if patient else {}) | _handed_on(handed, withheld),
        withheld=withheld,
        session=session.key if ONLINE in named and OFFLINE not in named else "",
    )
    return Decision(token_grant, session.started // SECOND, record.parameter("launch"))


def _kept(record: AuthorizationRequest, form: Form) -> str:
    """The scopes less those unticked.  A browser that showed the list says so in ``listed``; a script may just say allow."""
    optional = {scope.text for scope in resource_scopes(record.scope)} | {OFFLINE, ONLINE}
    if not any(name == "listed" for name, _ in form):
        return record.scope
    ticked = {value for name, value in form if name == "scope"}
    chosen = {value for name, value in form if name == "part"}
    offered = category_scopes.parts(record.scope)
    kept: dict[str, None] = {}
    for scope in record.scope.split():
        parts = [part.text for part in offered.get(scope, ()) if part.text in chosen]
        kept.update(dict.fromkeys(parts or ([scope] if scope not in optional or scope in ticked else [])))
    if resource_scopes(record.scope) and not resource_scopes(" ".join(kept)):
        raise UnclearAnswerError("Choose at least one kind of information, or do not allow access.")
    return " ".join(kept)


def _may_withhold(record: AuthorizationRequest, session: Session) -> bool:
    """Patients and those who act for them may keep kinds of information from an app; staff's apps serve the institution."""
    return session.user.role == "patient" and bool(resource_scopes(record.scope))


def _withheld(record: AuthorizationRequest, session: Session, form: Form) -> tuple[str, ...]:
    chosen = [value for name, value in form if name == "withhold"]
    return sensitive_categories.withheld(chosen) if _may_withhold(record, session) else ()


async def _shown(
    smart: SmartContext, session: Session, patient: str | None, encounter: str | None, withheld: tuple[str, ...]
) -> str | None:
    """The visit to hand over, unless it is one the app must not learn of."""
    if not encounter or not patient or not withheld:
        return encounter or None
    shown = await smart.encounters(session.user.person(), patient, frozenset(withheld), smart.now())
    return encounter if any(choice.encounter == encounter for choice in shown) else None


def _handed_on(handed: Launch | None, withheld: tuple[str, ...]) -> dict[str, Any]:
    """A launch's further parameters; without things in context where one of them could be what the app must not learn of."""
    parameters = dict(handed.parameters) if handed else {}
    if withheld:
        parameters.pop("fhirContext", None)
    return parameters


def _without(scope: str, name: str) -> str:
    return " ".join(part for part in scope.split() if part != name)


async def _choice(smart: SmartContext, record: AuthorizationRequest, session: Session) -> RecordChoice | None:
    choices = await requests.choices(smart, session)
    if record.parameter("launch"):
        handed = await _launch(smart, record)
        return choices.get(handed.patient) if handed else None
    return choices.get(record.patient) if record.patient and record.chosen(session) and record.needs_record(session) else None


async def _launch(smart: SmartContext, record: AuthorizationRequest) -> Launch | None:
    handle = record.parameter("launch")
    return await launch.find(smart.store, handle, smart.now()) if handle else None
