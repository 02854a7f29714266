"""Revocation (RFC 7009) and introspection (RFC 7662) as Authlib endpoints."""

from __future__ import annotations

from typing import Any

from authlib.consts import default_json_headers
from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from fhir_server.smart.accounts import users
from fhir_server.smart.clients import subjects
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.clients.clients import find as find_client
from fhir_server.smart.core.authlib import run_on_loop
from fhir_server.smart.core.context import SECOND, SmartContext, digest
from fhir_server.smart.core.token_grants import ACCESS, REFRESH, TokenGrant, find
from fhir_server.smart.tokens import launch_parameters
from fhir_server.smart.tokens.grants import METHODS
from fhir_server.smart.tokens.tokens import Principal, current_scope, find_spent, resolve_principal


class Revocation(RevocationEndpoint):
    """Revokes the whole family of an access or refresh token, also of a used refresh token.  An unknown token gets the same response."""

    CLIENT_AUTH_METHODS = METHODS

    def create_endpoint_response(self, request: Any) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        smart: SmartContext = self.server.smart
        client = self.authenticate_endpoint_client(request)
        key = digest(_token(request))
        for kind in (ACCESS, REFRESH):
            token_grant = run_on_loop(find, smart.store, kind, key, smart.now())
            if token_grant is not None:
                self._revoke(client, token_grant.client_id, token_grant.family)
                request.token_grant = token_grant
        # Last: a refresh token that another request has used since is found here.
        if request.token_grant is None and (spent := run_on_loop(find_spent, smart.store, key, smart.now())):
            self._revoke(client, *spent)
        return 200, {}, default_json_headers

    def _revoke(self, client: Any, owner: str, family: str) -> None:
        """Raises InvalidGrantError if the token belongs to another client."""
        if owner != client.get_client_id():
            raise InvalidGrantError
        run_on_loop(self.server.smart.store.key_values.delete_family, family)


class Introspection(IntrospectionEndpoint):
    """The content of an active access token; only ``{"active": false}`` for any other text."""

    CLIENT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "client_secret_post", "bearer")

    def create_endpoint_response(self, request: Any) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        self.authenticate_endpoint_client(request)
        return 200, run_on_loop(_introspect, self.server.smart, _token(request)), default_json_headers


def _token(request: Any) -> str:
    if not request.form.get("token"):
        raise InvalidRequestError("The parameter token is missing.")
    return str(request.form["token"])


async def _introspect(smart: SmartContext, token: str) -> dict[str, Any]:
    now = smart.now()
    token_grant = await find(smart.store, ACCESS, digest(token), now)
    client = await find_client(smart.store, token_grant.client_id) if token_grant else None
    caller = await resolve_principal(smart.store, token, now)
    if token_grant is None or client is None or caller is None:
        return {"active": False}
    response = {
        "active": True,
        "client_id": token_grant.client_id,
        "scope": current_scope(client, token_grant),
        "token_type": "DPoP" if token_grant.jkt else "Bearer",
        **({"cnf": {"jkt": token_grant.jkt}} if token_grant.jkt else {}),
        "exp": token_grant.expires // SECOND,
        "iat": token_grant.issued // SECOND,
        **launch_parameters.build(smart, token_grant),
    }
    return response | await _identity(smart, client, token_grant, caller)


async def _identity(smart: SmartContext, client: Client, token_grant: TokenGrant, caller: Principal) -> dict[str, str]:
    scopes = token_grant.scope.split()
    user = await users.find(smart.store, token_grant.username) if token_grant.username else None
    if user is None or "openid" not in scopes:
        return {}
    identity = {"iss": smart.origin, "sub": await subjects.subject(smart.store, client, user)}
    if "fhirUser" in scopes and caller.fhir_user:
        identity["fhirUser"] = f"{smart.fhir_base}/{caller.fhir_user}"
    return identity
