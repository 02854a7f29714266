"""Sign-in with an external OpenID provider: authorization code flow with PKCE (OpenID Connect Core 3.1, RFC 9207, RFC 9700).

A response is accepted once, in the browser that started the sign-in, and from the provider it was started with.  The
provider's tokens are checked and not stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from fhir_server.smart.accounts import identity_providers
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.accounts.users import User
from fhir_server.smart.authorize import requests
from fhir_server.smart.core.context import REQUEST_LIFE, SECOND, SmartContext, digest, new_secret
from fhir_server.smart.outbound import client_authentication
from fhir_server.smart.outbound.id_tokens import ExpectedClaims, InvalidIdTokenError, verify
from fhir_server.smart.outbound.json_client import InvalidResponseError, JsonClient, NoResponseError, as_text, is_callable_url

_KIND: Final = "federation-state"
_SIGNING: Final = ("ES384", "RS256")
_UNKNOWN: Final = "This sign-in provider is not available."
_EXPIRED: Final = "This request has expired or was already answered. Go back to the app and start again."
_MISMATCH: Final = "This response does not match a sign-in that you started in this browser. Start again."
_CANCELED: Final = "The sign-in was canceled. You can try again."
_REFUSED: Final = "The sign-in provider reported an error. Try again, or sign in another way."
_UNAVAILABLE: Final = "The sign-in provider is not available at the moment. Try again later, or sign in another way."
_UNVERIFIED: Final = "The response of the sign-in provider could not be verified. Try again, or sign in another way."
_UNLINKED: Final = "This sign-in is not linked to an account here. Our health information office can help."


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where a sign-in leads: to the authorization request ``request`` if it is response, else to the local path ``next``.

    ``authenticated`` is when the person signed in at the provider, in microseconds; 0 if the provider does not say.
    """

    request: str = ""
    next: str = ""
    authenticated: int = 0


class SignInFailedError(Exception):
    """A failed sign-in, with a message for the user.  ``sub`` is the user's verified subject at the provider, or ""."""

    status: int = 400

    def __init__(self, text: str, continuation: Continuation | None = None, sub: str = "") -> None:
        super().__init__(text)
        self.continuation = continuation or Continuation()
        self.sub = sub


class ProviderUnavailableError(SignInFailedError):
    """The provider cannot be reached, or its response cannot be used."""

    status = 503

    def __init__(self, continuation: Continuation) -> None:
        super().__init__(_UNAVAILABLE, continuation)


class _Endpoints(msgspec.Struct, frozen=True):
    authorization: str
    token: str
    jwks: str
    names_itself: bool
    auth: tuple[str, ...]
    signing: tuple[str, ...]


class _PendingSignIn(msgspec.Struct, frozen=True):
    """A started sign-in: its provider, its browser (digest of the session cookie), and what the response must match."""

    provider: str
    client_id: str
    browser: str
    endpoints: _Endpoints
    verifier: str
    nonce: str
    since: int
    request: str
    next: str


@dataclass(frozen=True, slots=True)
class SignInFlow:
    """The sign-in flow, with the context and the HTTP client it uses."""

    smart: SmartContext
    json_client: JsonClient

    async def start(self, id: str, cookie: str, target: Continuation) -> str:
        """Start a sign-in and return the URL of the provider's authorization request.  Raises SignInFailedError."""
        provider = await identity_providers.find(self.smart.store, id)
        if provider is None:
            raise SignInFailedError(_UNKNOWN, target)
        authorization = await requests.find(self.smart, target.request) if target.request else None
        if target.request and authorization is None:
            raise SignInFailedError(_EXPIRED)
        endpoints = await self._endpoints(provider, target)
        needs_fresh = authorization is not None and authorization.requires_fresh_sign_in
        since = self.smart.now() // SECOND if needs_fresh else 0
        state = new_secret()
        pending = _PendingSignIn(
            provider.id, provider.client_id, digest(cookie), endpoints, new_secret(), new_secret(), since, target.request, target.next
        )
        expires = self.smart.now() + REQUEST_LIFE
        await self.smart.store.key_values.put(_KIND, digest(state), msgspec.json.encode(pending), expires)
        return str(
            prepare_grant_uri(
                endpoints.authorization,
                provider.client_id,
                "code",
                redirect_uri=identity_providers.redirect_uri(self.smart, provider),
                scope="openid",
                state=state,
                nonce=pending.nonce,
                code_challenge=create_s256_code_challenge(pending.verifier),
                code_challenge_method="S256",
                **({"prompt": "login", "max_age": "0"} if needs_fresh else {}),
            )
        )

    async def finish(self, id: str, cookie: str, pairs: Iterable[tuple[str, str]]) -> tuple[User, Continuation]:
        """Check the provider's response.  Returns the account, and where the sign-in leads.  Raises SignInFailedError."""
        parameters = list(pairs)
        response = dict(parameters)
        pending = await self._take_pending(response.get("state", ""))
        if pending is None or not cookie or pending.browser != digest(cookie) or len(response) != len(parameters):
            raise SignInFailedError(_MISMATCH)
        target = Continuation(pending.request, pending.next)
        provider = await identity_providers.find(self.smart.store, pending.provider)
        if provider is None or pending.provider != id or provider.client_id != pending.client_id:
            raise SignInFailedError(_MISMATCH, target)
        _check_response(provider, pending, response, target)
        claims = await self._claims(provider, pending, response["code"], target)
        sub, now = str(claims["sub"]), self.smart.now()
        user = await identity_providers.find_account(self.smart.store, provider.issuer, sub)
        if user is None:
            raise SignInFailedError(_UNLINKED, target, sub)
        return user, Continuation(pending.request, pending.next, now if pending.since else _authenticated_at(claims, now))

    async def _take_pending(self, state: str) -> _PendingSignIn | None:
        text = await self.smart.store.key_values.pop(_KIND, digest(state), self.smart.now())
        return None if text is None else msgspec.json.decode(text, type=_PendingSignIn)

    async def _endpoints(self, provider: Provider, target: Continuation) -> _Endpoints:
        """Fetch the endpoints from the provider's discovery document (OpenID Connect Discovery 1.0, 4)."""
        metadata = await self._json(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration", target)
        endpoints = _Endpoints(
            authorization=as_text(metadata.get("authorization_endpoint")),
            token=as_text(metadata.get("token_endpoint")),
            jwks=as_text(metadata.get("jwks_uri")),
            names_itself=metadata.get("authorization_response_iss_parameter_supported") is True,
            auth=_texts(metadata.get("token_endpoint_auth_methods_supported")),
            signing=_texts(metadata.get("token_endpoint_auth_signing_alg_values_supported")),
        )
        urls = (endpoints.authorization, endpoints.token, endpoints.jwks)
        if metadata.get("issuer") != provider.issuer or not all(is_callable_url(self.smart, url) for url in urls):
            raise ProviderUnavailableError(target)
        return endpoints

    async def _claims(self, provider: Provider, pending: _PendingSignIn, code: str, target: Continuation) -> dict[str, Any]:
        body = prepare_token_request(
            "authorization_code",
            code=code,
            redirect_uri=identity_providers.redirect_uri(self.smart, provider),
            code_verifier=pending.verifier,
        )
        try:
            signed_body, headers = await self._authenticate(provider, pending.endpoints, body)
            reply = await self.json_client.post_form(pending.endpoints.token, signed_body, headers)
        except (NoResponseError, InvalidResponseError, LookupError):  # LookupError: no usable client secret or signing key
            raise ProviderUnavailableError(target) from None
        if reply.status >= 500:
            raise ProviderUnavailableError(target)
        if reply.status != 200:
            raise SignInFailedError(_REFUSED, target)
        keys = await self._json(pending.endpoints.jwks, target)
        access = as_text(reply.body.get("access_token"))
        expected = ExpectedClaims(provider.issuer, provider.client_id, pending.nonce, access, pending.since)
        try:
            return await verify(reply.body.get("id_token"), keys, expected, self.smart.now())
        except InvalidIdTokenError:
            raise SignInFailedError(_UNVERIFIED, target) from None

    async def _authenticate(self, provider: Provider, endpoints: _Endpoints, body: str) -> client_authentication.AuthenticatedRequest:
        if provider.method == "private_key_jwt":
            alg = next((alg for alg in _SIGNING if alg in endpoints.signing), _SIGNING[-1])
            return await client_authentication.authenticate_by_key(
                self.smart, provider.client_id, endpoints.token, endpoints.token, body, alg
            )
        by_post = "client_secret_post" in endpoints.auth and "client_secret_basic" not in endpoints.auth
        method = "client_secret_post" if by_post else "client_secret_basic"
        secret = identity_providers.client_secret(self.smart, provider)
        return client_authentication.authenticate_by_secret(provider.client_id, secret, method, endpoints.token, body)

    async def _json(self, url: str, target: Continuation) -> dict[str, Any]:
        try:
            reply = await self.json_client.get(url)
        except (NoResponseError, InvalidResponseError):
            raise ProviderUnavailableError(target) from None
        if reply.status != 200:
            raise ProviderUnavailableError(target)
        return reply.body


def _check_response(provider: Provider, pending: _PendingSignIn, response: dict[str, str], target: Continuation) -> None:
    # Checks the issuer first, for error responses too: a response of another server must not be accepted (RFC 9207 2.4).
    if response.get("iss", provider.issuer) != provider.issuer or (pending.endpoints.names_itself and "iss" not in response):
        raise SignInFailedError(_MISMATCH, target)
    if "error" in response:
        raise SignInFailedError(_CANCELED if response["error"] == "access_denied" else _REFUSED, target)
    if not response.get("code"):
        raise SignInFailedError(_REFUSED, target)


def _authenticated_at(claims: dict[str, Any], now: int) -> int:
    """``auth_time`` in microseconds.  0 if it is absent: the person may have signed in at the provider long ago."""
    auth_time = claims.get("auth_time")
    return min(auth_time * SECOND, now) if isinstance(auth_time, int) and not isinstance(auth_time, bool) and auth_time > 0 else 0


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
