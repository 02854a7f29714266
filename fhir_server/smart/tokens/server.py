"""The Authlib authorization server over our records.  What is synchronous in it is to be called ``in_thread``."""

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
from fhir_server.smart.core.token_grants import REFRESH
from fhir_server.smart.tokens import launch
from fhir_server.smart.tokens.endpoints import Introspection, Revocation
from fhir_server.smart.tokens.grants import AuthorizationCode, Challenge, ClientCredentials, Decision, IdToken, RefreshToken
from fhir_server.smart.tokens.tokens import client_of, resolve_principal

logging.getLogger("authlib").setLevel(logging.WARNING)  # its debug lines hold tokens

_OBJECTS = ("request", "request_uri")
_PERSONAL = {"authorization_code", "refresh_token"}
_GRANT_TYPES = {"app": _PERSONAL, "partner": _PERSONAL, "backend": {"client_credentials"}}
_AUTH_METHODS = {
    "none": {"none", "refresh_token"},
    "client_secret": {"client_secret_basic", "client_secret_post"},
    "private_key_jwt": {"private_key_jwt"},
}


class AuthlibClient(ClientMixin):
    """A client record, in the form Authlib asks for it."""

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


class SmartRequest:
    """What SMART adds to an authorization request: the right ``aud``, and a launch handle that is this client's."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart

    def __call__(self, grant: Any) -> None:
        grant.register_hook("after_validate_authorization_request_payload", self.check)

    def check(self, grant: Any, _: Any) -> None:
        given = grant.request.payload.data
        # Who only asks who somebody is (plain OpenID Connect) has no resource server to name.
        if ("aud" in given or grant.request.scope != "openid") and given.get("aud", "").removesuffix("/") != self._smart.fhir_base:
            raise InvalidRequestError("The aud must be the FHIR base URL of this server.")
        for name in _OBJECTS:  # which may say otherwise than the parameters beside it (OpenID Connect Core 6)
            if name in given:
                raise OAuth2Error(error=f"{name}_not_supported", description="Requests are read from their parameters alone.")
        if "none" in given.get("prompt", "").split():
            raise OAuth2Error(error="interaction_required", description="This server always asks the person.")
        if "launch" in grant.request.scope.split() or given.get("launch"):
            found = run_on_loop(launch.find, self._smart.store, given.get("launch", ""), self._smart.now())
            if found is None or found.client_id != grant.request.client.get_client_id():
                raise InvalidRequestError("The launch is not known, not for this client, or used.")


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
        self._iss = _Issuer(smart.origin)
        self.register_grant(AuthorizationCode, [Challenge(required=True), SmartRequest(smart), IdToken(smart)])
        self.register_grant(RefreshToken)
        self.register_grant(ClientCredentials)
        self.register_endpoint(Revocation)
        self.register_endpoint(Introspection)
        self.register_extension(self._iss)
        self._assertion = ClientAssertion(smart)
        self.register_client_auth_method("private_key_jwt", self._assertion)
        self.register_client_auth_method("client_secret_basic", self._by_basic)
        self.register_client_auth_method("bearer", self._by_bearer)
        self.register_client_auth_method("refresh_token", self._by_refresh_token)

    def query_client(self, client_id: str) -> AuthlibClient | None:
        record = run_on_loop(clients.find, self.smart.store, client_id)
        return AuthlibClient(record) if record else None

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        """Tokens are kept in the step that makes them."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def create_oauth2_request(self, request: AuthlibRequest) -> AuthlibRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> AuthlibResponse:
        return AuthlibResponse(status, body, list(headers))

    def authenticate_client(self, request: AuthlibRequest, methods: tuple[str, ...], endpoint: str = "token") -> AuthlibClient:
        """As Authlib does, but one way at a time (RFC 6749 2.3) and never as somebody other than ``client_id`` says."""
        ways = ("Authorization" in request.headers, "client_secret" in request.form, "client_assertion" in request.form)
        if sum(ways) > 1:
            raise InvalidRequestError("A client authenticates in one way at a time.")
        client: AuthlibClient = super().authenticate_client(request, methods, endpoint)
        if request.payload.client_id not in (None, "", client.get_client_id()):
            raise InvalidClientError(status_code=401, description="The client_id is not the client that authenticated.")
        return client

    def _by_basic(self, query_client: Any, request: AuthlibRequest) -> AuthlibClient | None:
        """Id and secret as RFC 6749 2.3.1 has them, form-encoded, or as most programs send them, plain."""
        for client_id, secret in basic_credentials(request.headers.get("Authorization", "")):
            client: AuthlibClient | None = query_client(client_id)
            if client and client.check_client_secret(secret):
                return client
        return None

    def _by_bearer(self, query_client: Any, request: AuthlibRequest) -> AuthlibClient | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        caller = run_on_loop(resolve_principal, self.smart.store, token.strip(), self.smart.now())
        return self.query_client(caller.client_id) if caller else None

    def _by_refresh_token(self, query_client: Any, request: AuthlibRequest) -> AuthlibClient | None:
        """A public client that refreshes without saying its client_id, which RFC 6749 6 does not ask for."""
        if request.form.get("grant_type") != "refresh_token" or request.form.get("client_id"):
            return None
        owner = run_on_loop(client_of, self.smart.store, REFRESH, digest(request.form.get("refresh_token", "")), self.smart.now())
        return self.query_client(owner) if owner else None

    async def prepare_request(self, request: AuthlibRequest) -> AuthlibRequest:
        """The request, with the keys of the client that signed an assertion in it.  Not ``in_thread``: they may be elsewhere."""
        if assertion := request.form.get("client_assertion"):
            request.keys = await self._assertion.keys(assertion)
        return request

    def endpoint_response(self, name: str, request: AuthlibRequest) -> AuthlibResponse:
        """The answer of the ``token``, ``revocation`` or ``introspection`` endpoint."""
        try:
            request.check()
        except OAuth2Error as error:
            return self.error_response(request, error)
        answer: AuthlibResponse = self.create_token_response(request) if name == "token" else self.create_endpoint_response(name, request)
        return answer

    def validate_request(self, request: AuthlibRequest) -> Any:
        """The grant of a sound authorization request.  Raises OAuth2Error, with a redirect URI where one may be followed."""
        request.check()
        return self.get_consent_grant(request, end_user=None)

    def authorization_response(self, request: AuthlibRequest, decision: Decision | None) -> AuthlibResponse:
        """The redirect back to the client, with a code, or with ``access_denied`` for None."""
        grant = self.get_authorization_grant(request)
        answer: AuthlibResponse = self.create_authorization_response(request, grant_user=decision, grant=grant)
        return answer

    def error_response(self, request: AuthlibRequest, error: OAuth2Error) -> AuthlibResponse:
        """The answer to an error: a redirect (with ``state`` and ``iss``) if it may be followed, else a JSON body."""
        answer: AuthlibResponse = self.handle_error_response(request, error)
        if answer.location:
            self._iss.add_issuer_parameter(self, answer)
        return answer
