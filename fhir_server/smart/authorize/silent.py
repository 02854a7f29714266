"""Answers that need no page: ``prompt=none`` and ``id_token_hint`` (OpenID Connect Core 3.1.2.1, 3.1.2.6).

There is no ``account_selection_required``: a browser is signed in to one account.
"""

from __future__ import annotations

from typing import Final

import msgspec
from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import remembered_consents, staff_step
from fhir_server.smart.authorize.requests import AuthorizationRequest, SignedInRequest
from fhir_server.smart.clients import subjects
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.tokens import id_tokens
from fhir_server.smart.tokens.grants import Decision

_NOBODY: Final = "-"  # an identifier that the client never got: no account answers
_TEXTS: Final = {
    "login_required": "The person must sign in.",
    "consent_required": "The person must allow this access.",
    "interaction_required": "The person must choose on a page of this server.",
}


def refusal(error: str, authorization: AuthorizationRequest, state: str | None) -> OAuth2Error:
    """The error for the app, by redirect."""
    return OAuth2Error(error=error, description=_TEXTS[error], redirect_uri=authorization.redirect_uri, state=state)


async def expect_hinted(smart: SmartContext, authorization: AuthorizationRequest, hint: str) -> AuthorizationRequest:
    """The request, to be answered by the person whom the ``id_token_hint`` names ("": there is none).

    Raises InvalidRequestError, with a redirect URI, if it is no id_token of this server for this client.
    """
    if not hint:
        return authorization
    named = await id_tokens.read_hint(smart, hint)
    if named is None or named.client.client_id != authorization.client_id:
        text = "The id_token_hint is no id_token of this server for this client."
        raise InvalidRequestError(text, redirect_uri=authorization.redirect_uri, state=authorization.parameter("state") or None)
    subject = await subjects.account_subject(smart.store, named.client, named.sub)
    return msgspec.structs.replace(authorization, hinted=subject or _NOBODY)


async def decide(smart: SmartContext, authorization: AuthorizationRequest, session: Session | None) -> Decision:
    """The decision for ``prompt=none``.  Raises OAuth2Error, with a redirect URI, if the person is needed."""
    if session is None or not authorization.accepts_session(session):
        raise refusal("login_required", authorization, None)
    admission = await staff_step.admit(smart, SignedInRequest("", authorization, session))
    if not admission.is_admitted:  # the page says why
        raise refusal("consent_required", authorization, None)
    found = await remembered_consents.find_decision(smart, admission.request.authorization, session, admission.approval)
    if isinstance(found, str):
        raise refusal(found, authorization, None)
    return found
