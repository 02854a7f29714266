"""The authorization server: Authlib's, with this server's clients, grants and tokens.

Call its synchronous methods with :func:`~fhir_server.smart.core.authlib.run_in_thread`.
"""

from __future__ import annotations

import logging
from typing import Any

from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    InvalidClientError,
    InvalidRequestError,
    OAuth2Error,
)
from authlib.oauth2.rfc9207 import IssuerParameter
from joserfc.jwk import KeySet

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.assertion import ClientAssertion
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.authlib import AuthlibRequest, AuthlibResponse, basic_credentials, run_on_loop
from fhir_server.smart.core.context import SmartContext, digest
from fhir_server.smart.core.scopes import narrow_scopes
from fhir_server.smart.tokens.endpoints import Introspection, Revocation
from fhir_server.smart.tokens.grants import AuthorizationCode, Challenge, ClientCredentials, Decision, RefreshToken
from fhir_server.smart.tokens.id_tokens import IdToken
from fhir_server.smart.tokens.pushed_requests import PushedRequests
from fhir_server.smart.tokens.request_rules import RequestRules, check_resource
from fhir_server.smart.tokens.response_modes import move_to_fragment
from fhir_server.smart.tokens.tokens import client_of_refresh_token, resolve_bearer

logging.getLogger("authlib").setLevel(logging.WARNING)  # its debug messages contain tokens

_FOR_PERSONS = {"authorization_code", "refresh_token"}
_GRANT_TYPES = {"app": _FOR_PERSONS, "partner": _FOR_PERSONS, "backend": {"client_credentials"}}
_AUTH_METHODS = {
    "none": {"none", "refresh_token"},
    "client_secret": {"client_secret_basic", "client_secret_post"},
    "private_key_jwt": {"private_key_jwt"},
}


class AuthlibClient(ClientMixin):
    """A client record, with the methods that Authlib calls."""

    def __init__(self, record: Client) -> None:
        self.record = record
        self.keys = KeySet([])

    def get_client_id(self) -> str:
        return self.record.client_id

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        return " ".join(narrow_scopes(scope or "", self.record.scopes, self.record.levels)) or None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.record.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return self.record.matches_secret(client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "bearer" or method in _AUTH_METHODS[self.record.method]

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and self.check_grant_type("authorization_code")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in _GRANT_TYPES[self.record.kind]


class _Issuer(IssuerParameter):
    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        return self._issuer


class OAuthServer(AuthorizationServer):
    """Authlib's server for one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        super().__init__()
        self.smart = smart
        self._issuer = _Issuer(smart.origin)
        self.register_grant(AuthorizationCode, [Challenge(required=True), RequestRules(smart), IdToken(smart)])
        self.register_grant(RefreshToken, [IdToken(smart)])
        self.register_grant(ClientCredentials)
        self.register_endpoint(Revocation)
        self.register_endpoint(Introspection)
        self.register_endpoint(PushedRequests)
        self.register_extension(self._issuer)
        self._assertion = ClientAssertion(smart)
        self.register_client_auth_method("private_key_jwt", self._assertion)
        self.register_client_auth_method("client_secret_basic", self._authenticate_basic)
        self.register_client_auth_method("bearer", self._authenticate_bearer)
        self.register_client_auth_method("refresh_token", self._authenticate_by_refresh_token)

    def query_client(self, client_id: str) -> AuthlibClient | None:
        record = run_on_loop(clients.find, self.smart.store, client_id)
        return AuthlibClient(record) if record else None

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        """Does nothing: the grants store their tokens."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Does nothing: this server has no listeners."""

    def create_oauth2_request(self, request: AuthlibRequest) -> AuthlibRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> AuthlibResponse:
        return AuthlibResponse(status, body, list(headers))

    def authenticate_client(self, request: AuthlibRequest, methods: tuple[str, ...], endpoint: str = "token") -> AuthlibClient:
        """Authenticate as Authlib does, with one method only (RFC 6749 2.3).

        Raises InvalidRequestError for several methods at once, InvalidClientError if authentication fails or the
        parameter ``client_id`` names another client.
        """
        methods_used = ("Authorization" in request.headers, "client_secret" in request.form, "client_assertion" in request.form)
        if sum(methods_used) > 1:
            raise InvalidRequestError("A client must use one authentication method.")
        client: AuthlibClient = super().authenticate_client(request, methods, endpoint)
        request.is_proven = True
        if endpoint == "token" and not request.jkt and (self.smart.require_dpop or client.record.options.dpop_bound_access_tokens):
            raise OAuth2Error(error="invalid_dpop_proof", description="This client gets tokens only with a proof (DPoP).")
        if request.payload.client_id not in (None, "", client.get_client_id()):
            raise InvalidClientError(status_code=401, description="The client_id does not match the authenticated client.")
        return client

    def _authenticate_basic(self, query_client: Any, request: AuthlibRequest) -> AuthlibClient | None:
        """``client_secret_basic``: id and secret form-encoded (RFC 6749 2.3.1), or plain, as most clients send them."""
        for client_id, secret in basic_credentials(request.headers.get("Authorization", "")):
            client: AuthlibClient | None = query_client(client_id)
            if client and client.check_client_secret(secret):
                return client
        return None

    def _authenticate_bearer(self, query_client: Any, request: AuthlibRequest) -> AuthlibClient | None:
        """A client that presents one of its own access tokens, for introspection."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        caller = run_on_loop(resolve_bearer, self.smart.store, token.strip(), self.smart.now())
        return self.query_client(caller.client_id) if caller else None

    def _authenticate_by_refresh_token(self, query_client: Any, request: AuthlibRequest) -> AuthlibClient | None:
        """A public client that refreshes without ``client_id``, which RFC 6749 6 does not require."""
        if request.form.get("grant_type") != "refresh_token" or request.form.get("client_id"):
            return None
        key = digest(request.form.get("refresh_token", ""))
        owner = run_on_loop(client_of_refresh_token, self.smart.store, key, self.smart.now())
        return self.query_client(owner) if owner else None

    async def prepare_request(self, request: AuthlibRequest) -> AuthlibRequest:
        """The request with the keys of the client that its assertion names.  Runs on the event loop: it may fetch the keys."""
        if assertion := request.form.get("client_assertion"):
            request.keys = await self._assertion.keys(assertion)
        return request

    def endpoint_response(self, name: str, request: AuthlibRequest) -> AuthlibResponse:
        """The response of the ``token``, ``revocation``, ``introspection`` or ``par`` endpoint."""
        try:
            request.check()
            check_resource(request.form, self.smart)
        except OAuth2Error as error:
            return self.error_response(request, error)
        response: AuthlibResponse = self.create_token_response(request) if name == "token" else self.create_endpoint_response(name, request)
        return response

    def validate_request(self, request: AuthlibRequest) -> Any:
        """The grant of a valid authorization request.  Raises OAuth2Error, with a redirect URI if the client may receive the error."""
        request.check()
        return self.get_consent_grant(request, end_user=None)

    def authorization_response(self, request: AuthlibRequest, decision: Decision | None) -> AuthlibResponse:
        """The redirect to the client, with a code, or with ``access_denied`` if ``decision`` is None."""
        grant = self.get_authorization_grant(request)
        response: AuthlibResponse = self.create_authorization_response(request, grant_user=decision, grant=grant)
        move_to_fragment(request, response)
        return response

    def error_response(self, request: AuthlibRequest, error: OAuth2Error) -> AuthlibResponse:
        """The response to an error: a redirect with ``state`` and ``iss`` if the error has a redirect URI, else a JSON body."""
        response: AuthlibResponse = self.handle_error_response(request, error)
        if response.location:
            self._issuer.add_issuer_parameter(self, response)
            move_to_fragment(request, response)
        return response
