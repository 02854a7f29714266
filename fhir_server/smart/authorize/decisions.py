"""What is kept of a decision on an authorization request: the line of the audit log, the consent, and the client of the session."""

from __future__ import annotations

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import consent_state, open_apps, remembered_consents
from fhir_server.smart.authorize.consent_state import ConsentState
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.clients import clients, subjects
from fhir_server.smart.core import logout_queue
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.logout_queue import SignedIn
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.tokens.grants import Decision, is_without_pkce


async def record_decision(
    smart: SmartContext, authorization: AuthorizationRequest, session: Session, decision: Decision | None, *, is_silent: bool = False
) -> None:
    """Record a decision, or a refusal (None), with what is unusual about it: no page was shown, or the client is without PKCE."""
    detail = {"error": "access_denied", "cause": "denied by the person"}
    about: tuple[str, ...] = ()
    client = await clients.find(smart.store, authorization.client_id)
    if decision is not None:
        about, detail = patient_references(decision.token_grant.patient), {"scope": decision.token_grant.scope}
        detail |= {"prompt": "none"} if is_silent else {}
        detail |= {"pkce": "none"} if client is not None and is_without_pkce(client, dict(authorization.pairs)) else {}
    event = SecurityEvent("allow-app", decision is not None, session.user.username, authorization.client_id, "", about, detail)
    await smart.record(event)


async def keep_decision(smart: SmartContext, state: ConsentState, decision: Decision) -> None:
    """Keep an "allow".  Before the code exists: what is kept ends with it, whoever revokes it and when."""
    if state.client is None:
        return
    await open_apps.remember(smart, state.session, decision.token_grant)
    await consent_state.remember_identity(smart, state.session.user, state.client)
    await remembered_consents.remember(smart, state.client, state.authorization, state.session, decision.token_grant)
    await note_sign_in(smart, state.session, decision)


async def note_sign_in(smart: SmartContext, session: Session, decision: Decision) -> None:
    """Note that the session signs its user in to the client, which is then told of its end."""
    client = await clients.find(smart.store, decision.token_grant.client_id)
    if client is not None and "openid" in decision.token_grant.scope.split():
        sub, sid = await subjects.subject(smart.store, client, session.user), logout_queue.session_id(session.key, client.client_id)
        signed_in = SignedIn(client.client_id, sub, sid, session.user.username)
        await logout_queue.add(smart.store, session.key, signed_in, smart.now())
