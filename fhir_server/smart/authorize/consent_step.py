"""The consent step: builds the consent page and turns the user's answer into a token grant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import category_scopes, consent_state, sensitive_categories
from fhir_server.smart.authorize.category_scopes import CategoryScope
from fhir_server.smart.authorize.consent_state import ConsentState
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.authorize.scope_wording import ScopeWords, describe_scope, describe_wildcard
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import (
    DAY,
    GRANT_LIFE,
    HOUR,
    MINUTE,
    REFRESH_LIFE,
    SECOND,
    SESSION_IDLE,
    SESSION_LIFE,
    SmartContext,
    new_secret,
)
from fhir_server.smart.core.logout_queue import session_id
from fhir_server.smart.core.persons import Role, own_reference
from fhir_server.smart.core.scopes import Scope, resource_scopes
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens.grants import Decision
from fhir_server.smart.tokens.launch import Launch
from fhir_server.web.forms import Form

OFFLINE: Final = "offline_access"
ONLINE: Final = "online_access"
CHANGED: Final = "What the app would get has changed since this page was opened, perhaps in another tab. Check it again before you choose."
NOTHING: Final = "You cannot give this app anything that it asks for in this record. Choose Deny."


class UnclearAnswerError(ValueError):
    """An answer that the server cannot act on.  The message is for the user."""


async def requesting_client(smart: SmartContext, authorization: AuthorizationRequest) -> dict[str, Any]:
    """Return the template values for the client: its registered name, and the host of the redirect URI."""
    client = await clients.find(smart.store, authorization.client_id)
    return {
        "client_name": client.name if client else authorization.client_id,
        "client_host": client.redirect_host(authorization.redirect_uri) if client else "",
    }


async def consent_offer(smart: SmartContext, state: ConsentState) -> dict[str, Any]:
    """Return the template values of the consent page: the record, the requested scopes in words, and how long access lasts."""
    names, session = state.authorization.scope.split(), state.session
    offered = {text: resource_scopes(" ".join(granted)) for text, granted in state.effective.items() if granted}
    return {
        "shown": state.shown,
        "changed": await consent_state.changed_since(smart, session.user, state.client),
        "choice": state.choice,
        "launched": state.launched is not None and state.choice is None,
        "visit": state.visit[1] if state.visit else "",
        "scopes": [(text, _describe(scopes, session.user.role)) for text, scopes in offered.items()],
        "nothing": bool(state.effective) and not offered,
        "parts": _category_parts(state.effective),
        "sensitive": sensitive_categories.CATEGORY_NAMES if _may_withhold(state.authorization, session) else {},
        "identity": "openid" in names or "fhirUser" in names,
        "profile": "profile" in names,
        "offline_days": REFRESH_LIFE // DAY if OFFLINE in names else 0,
        "offline_years": GRANT_LIFE // (365 * DAY),
        "connected": f"{smart.origin}/apps",
        "idle_minutes": SESSION_IDLE // MINUTE,
        "renewable_hours": SESSION_LIFE // HOUR if not state.authorization.parameter("launch") else 0,
        "online_hours": SESSION_LIFE // HOUR if ONLINE in names and OFFLINE not in names else 0,
    }


def selected_values(authorization: AuthorizationRequest, form: Form | None) -> frozenset[tuple[str, str]]:
    """Return the checked boxes as (name, value): those that ``form`` sent, or before that all requested scopes."""
    if form is None:
        return frozenset(("scope", scope) for scope in authorization.scope.split())
    return frozenset(pair for pair in form if pair[0] in ("scope", "part", "withhold"))


async def build_decision(smart: SmartContext, state: ConsentState, form: Form) -> Decision | None:
    """Return the decision for an "allow"; None if the launch belongs to another user or has expired.

    Raises UnclearAnswerError, also if the form showed something else than what is true now.
    """
    authorization, session, choice, launched, patient = state.authorization, state.session, state.choice, state.launched, state.patient
    if authorization.parameter("launch") and (launched is None or launched.username != session.user.username):
        return None
    if authorization.needs_record(session) and choice is None:
        raise UnclearAnswerError("You no longer have access to this record. Go back and choose again.")
    if not state.was_shown(dict(form).get("shown", "")):
        raise UnclearAnswerError(CHANGED)
    scope = _granted_scope(authorization, form, state.effective)
    withheld = _withheld(authorization, session, form)
    encounter = await _visible_encounter(smart, session, patient, state.visit[0] if state.visit else None, withheld)
    names = set(scope.split())
    token_grant = TokenGrant(
        client_id=authorization.client_id,
        scope=scope if encounter else _without(scope, "launch/encounter"),
        family=new_secret(),
        username=session.user.username,
        patient=patient,
        encounter=encounter,
        fhir_user=(choice.fhir_user if choice else "") or own_reference(session.user.person()),
        launch=({"need_patient_banner": True} if patient else {}) | _launch_values(launched, withheld),
        withheld=withheld,
        session=session.key if ONLINE in names and OFFLINE not in names else "",
        generation=session.user.generation,
        app=state.client.identity if state.client else (),
        amr=session.amr,
        sid=session_id(session.key, authorization.client_id),
    )
    return Decision(token_grant, session.authenticated // SECOND, authorization.parameter("launch"), session.key)


def _describe(scopes: tuple[Scope, ...], role: Role) -> ScopeWords:
    return describe_wildcard(scopes, role) if len(scopes) > 1 else ScopeWords(describe_scope(scopes[0], role))


def _category_parts(effective: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[CategoryScope, ...]]:
    """The category scopes that the user may choose in place of a requested scope."""
    parts = category_scopes.narrower_scopes(" ".join(text for granted in effective.values() for text in granted))
    return {text: parts[granted[0]] for text, granted in effective.items() if len(granted) == 1 and granted[0] in parts}


def _granted_scope(authorization: AuthorizationRequest, form: Form, effective: Mapping[str, tuple[str, ...]]) -> str:
    """Return the scopes that have an effect, without those deselected.  A form without the field ``listed`` deselects nothing.

    Raises UnclearAnswerError if nothing is left of the requested resource scopes.
    """
    if effective and not any(effective.values()):
        raise UnclearAnswerError(NOTHING)
    optional = effective.keys() | {OFFLINE, ONLINE}
    if not any(name == "listed" for name, _ in form):
        whole = (text for scope in authorization.scope.split() for text in effective.get(scope, (scope,)))
        return " ".join(dict.fromkeys(whole))
    selected = {value for name, value in form if name == "scope"}
    selected_parts = {value for name, value in form if name == "part"}
    offered = _category_parts(effective)
    granted: dict[str, None] = {}
    for scope in authorization.scope.split():
        parts = [part.text for part in offered.get(scope, ()) if part.text in selected_parts]
        granted.update(dict.fromkeys(parts or (effective.get(scope, (scope,)) if scope not in optional or scope in selected else ())))
    if effective and not resource_scopes(" ".join(granted)):
        raise UnclearAnswerError("Select at least one kind of information, or choose Deny.")
    return " ".join(granted)


def _may_withhold(authorization: AuthorizationRequest, session: Session) -> bool:
    """Whether the user may withhold categories: patients and proxies may, staff may not."""
    return session.user.role == "patient" and bool(resource_scopes(authorization.scope))


def _withheld(authorization: AuthorizationRequest, session: Session, form: Form) -> tuple[str, ...]:
    chosen = [value for name, value in form if name == "withhold"]
    return sensitive_categories.withheld_labels(chosen) if _may_withhold(authorization, session) else ()


async def _visible_encounter(
    smart: SmartContext, session: Session, patient: str | None, encounter: str | None, withheld: tuple[str, ...]
) -> str | None:
    """Return the visit for the launch context; None if the withheld categories hide it."""
    if not encounter or not patient or not withheld:
        return encounter or None
    visible = await smart.encounters(session.user.person(), patient, frozenset(withheld), smart.now())
    return encounter if any(choice.encounter == encounter for choice in visible) else None


def _launch_values(launched: Launch | None, withheld: tuple[str, ...]) -> dict[str, Any]:
    """Return a launch's further parameters.  Without ``fhirContext`` if categories are withheld: it could refer to them."""
    parameters = dict(launched.parameters) if launched else {}
    if withheld:
        parameters.pop("fhirContext", None)
    return parameters


def _without(scope: str, name: str) -> str:
    return " ".join(part for part in scope.split() if part != name)
