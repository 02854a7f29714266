"""``/oauth/userinfo``: what an app may know of the person who signed in (OpenID Connect Core 5.3).

The access token comes in the Authorization header only, so that no log or history has it.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from fhir_server.smart.accounts.session_use import AppUse
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients, subjects
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import SECOND, SmartContext, digest
from fhir_server.smart.core.token_grants import ACCESS, TokenGrant
from fhir_server.smart.tokens import dpop, id_tokens
from fhir_server.smart.tokens.dpop import ProofError, ProvenRequest
from fhir_server.smart.tokens.tokens import current_scope, find_account, resolve_principal
from fhir_server.web.forms import CORS, NO_STORE, PREFLIGHT, with_headers

PATH: Final = "/oauth/userinfo"
_HEADERS: Final = CORS | NO_STORE | {"Access-Control-Expose-Headers": "WWW-Authenticate, DPoP-Nonce"}


def add_userinfo(routes: APIRouter, smart: SmartContext) -> None:
    """Add the endpoint's routes."""
    use = AppUse(smart.store)

    async def userinfo(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "dpop") or not token.strip():
            return _refusal(401)
        proven = ""
        if scheme.lower() == "dpop":
            try:
                proven = await dpop.prove_token(smart, request.headers.get("dpop", ""), ProvenRequest(request.method, PATH, token))
            except ProofError as error:
                return with_headers(_refusal(401, error.error, str(error), "DPoP"), {"DPoP-Nonce": dpop.nonce(smart)})
        found = await _find(smart, token.strip())
        if found is None or found[0].jkt != proven or (scheme.lower() == "dpop" and not proven):
            return _refusal(401, "invalid_token", "The access token is not valid.")
        grant, client, user = found
        await use.note(grant.session, smart.now())
        if "openid" not in grant.scope.split():
            return _refusal(403, "insufficient_scope", "The access token was not granted the scope openid.")
        return JSONResponse(await _claims(smart, grant, client, user), headers=_HEADERS)

    async def preflight() -> Response:
        return Response(status_code=204, headers=PREFLIGHT)

    routes.add_api_route(PATH, userinfo, methods=["GET", "POST"])
    routes.add_api_route(PATH, preflight, methods=["OPTIONS"])


async def _find(smart: SmartContext, token: str) -> tuple[TokenGrant, Client, User] | None:
    """The grant of a valid access token of a person, with the scopes that the client may still have."""
    if await resolve_principal(smart.store, token, smart.now()) is None:  # it has ended, for one of many reasons
        return None
    grant = await token_grants.find(smart.store, ACCESS, digest(token), smart.now())
    client = await clients.find(smart.store, grant.client_id) if grant else None
    user = await find_account(smart.store, grant) if grant else None
    if grant is None or client is None or user is None:
        return None
    return token_grants.with_scope(grant, current_scope(client, grant)), client, user


async def _claims(smart: SmartContext, grant: TokenGrant, client: Client, user: User) -> dict[str, Any]:
    """The claims by scope.  No email: accounts have none that is verified."""
    claims: dict[str, Any] = {"sub": await subjects.subject(smart.store, client, user)}
    if "profile" in grant.scope.split():
        claims |= {"name": user.name} | ({"updated_at": user.changed // SECOND} if user.changed else {})
    return claims | id_tokens.fhir_user(smart, grant)


def _refusal(status: int, error: str = "", text: str = "", scheme: str = "Bearer") -> Response:
    """A challenge (RFC 6750 3), without an error code for a request without a token."""
    challenge = f'{scheme} realm="userinfo"' + (f', error="{error}", error_description="{text}"' if error else "")
    body = {"error": error, "error_description": text} if error else {}
    return JSONResponse(body, status, headers=_HEADERS | {"WWW-Authenticate": challenge})
