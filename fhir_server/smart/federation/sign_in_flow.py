"""Signing in at an outside OpenID provider: there and back (OpenID Connect Core 3.1, PKCE, RFC 9207, RFC 9700).

What a provider sends back counts once, in the browser it was asked for in, for the provider that was asked.  Nothing
it says is kept: its tokens are looked at and dropped.
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
_UNKNOWN: Final = "This is not a place where you can sign in from here."
_LAPSED: Final = "This request has run out or was already answered. Go back to the app and start again."
_STALE: Final = "This answer does not belong to a sign-in you have just started in this browser. Start again."
_DENIED: Final = "You did not sign in. Nothing has changed here, and you can try again."
_REFUSED: Final = "The sign-in did not work there. Try again, or sign in another way."
_DOWN: Final = "The sign-in cannot be reached at the moment. Try again later, or sign in another way."
_UNPROVEN: Final = "The answer could not be checked, so you were not signed in. Try again, or sign in another way."
_NOBODY: Final = "You are signed in there, but nothing here has been opened to that sign-in. Our health information office can help."


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where a sign-in is to lead: on with the authorization request ``request``, or else to the local path ``next``."""

    request: str = ""
    next: str = ""


class SignInFailedError(Exception):
    """A sign-in that came to nothing, worded for the person; ``sub`` is who she is over there, where that is certain."""

    status: int = 400

    def __init__(self, text: str, way: Continuation | None = None, sub: str = "") -> None:
        super().__init__(text)
        self.way = way or Continuation()
        self.sub = sub


class ProviderUnavailableError(SignInFailedError):
    """One that came to nothing because the provider is, or says, nothing that can be used."""

    status = 503

    def __init__(self, way: Continuation) -> None:
        super().__init__(_DOWN, way)


class _Endpoints(msgspec.Struct, frozen=True):
    authorization: str
    token: str
    jwks: str
    names_itself: bool
    auth: tuple[str, ...]
    signing: tuple[str, ...]


class _PendingSignIn(msgspec.Struct, frozen=True):
    """A sign-in under way: to whom, in which browser, and what the answer must fit."""

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
    """Sign-in at outside providers, wired."""

    smart: SmartContext
    outside: JsonClient

    async def start(self, id: str, cookie: str, way: Continuation) -> str:
        """The address at which this browser's user signs in over there.  Raises Failed."""
        provider = await identity_providers.find(self.smart.store, id)
        if provider is None:
            raise SignInFailedError(_UNKNOWN, way)
        record = await requests.find(self.smart, way.request) if way.request else None
        if way.request and record is None:
            raise SignInFailedError(_LAPSED)
        endpoints = await self._endpoints(provider, way)
        anew = record is not None and record.requires_fresh_sign_in
        since = self.smart.now() // SECOND if anew else 0
        state = new_secret()
        asked = _PendingSignIn(
            provider.id, provider.client_id, digest(cookie), endpoints, new_secret(), new_secret(), since, way.request, way.next
        )
        expires = self.smart.now() + REQUEST_LIFE
        await self.smart.store.key_values.put(_KIND, digest(state), msgspec.json.encode(asked), expires)
        return str(
            prepare_grant_uri(
                endpoints.authorization,
                provider.client_id,
                "code",
                redirect_uri=identity_providers.redirect_uri(self.smart, provider),
                scope="openid",
                state=state,
                nonce=asked.nonce,
                code_challenge=create_s256_code_challenge(asked.verifier),
                code_challenge_method="S256",
                **({"prompt": "login", "max_age": "0"} if anew else {}),
            )
        )

    async def finish(self, id: str, cookie: str, pairs: Iterable[tuple[str, str]]) -> tuple[User, Continuation]:
        """Who has signed in, and where to go on.  Raises Failed."""
        received = list(pairs)
        given = dict(received)
        asked = await self._take_pending(given.get("state", ""))
        if asked is None or not cookie or asked.browser != digest(cookie) or len(given) != len(received):
            raise SignInFailedError(_STALE)
        way = Continuation(asked.request, asked.next)
        provider = await identity_providers.find(self.smart.store, asked.provider)
        if provider is None or asked.provider != id or provider.client_id != asked.client_id:
            raise SignInFailedError(_STALE, way)
        _check_answer(provider, asked, given, way)
        sub = await self._subject(provider, asked, given["code"], way)
        user = await identity_providers.account(self.smart.store, provider.issuer, sub)
        if user is None:
            raise SignInFailedError(_NOBODY, way, sub)
        return user, way

    async def _take_pending(self, state: str) -> _PendingSignIn | None:
        kept = await self.smart.store.key_values.pop(_KIND, digest(state), self.smart.now())
        return None if kept is None else msgspec.json.decode(kept, type=_PendingSignIn)

    async def _endpoints(self, provider: Provider, way: Continuation) -> _Endpoints:
        """Its endpoints, as its discovery document states them now (OpenID Connect Discovery 1.0, 4)."""
        stated = await self._json(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration", way)
        endpoints = _Endpoints(
            authorization=as_text(stated.get("authorization_endpoint")),
            token=as_text(stated.get("token_endpoint")),
            jwks=as_text(stated.get("jwks_uri")),
            names_itself=stated.get("authorization_response_iss_parameter_supported") is True,
            auth=_texts(stated.get("token_endpoint_auth_methods_supported")),
            signing=_texts(stated.get("token_endpoint_auth_signing_alg_values_supported")),
        )
        places = (endpoints.authorization, endpoints.token, endpoints.jwks)
        if stated.get("issuer") != provider.issuer or not all(is_callable_url(self.smart, url) for url in places):
            raise ProviderUnavailableError(way)
        return endpoints

    async def _subject(self, provider: Provider, asked: _PendingSignIn, code: str, way: Continuation) -> str:
        body = prepare_token_request(
            "authorization_code",
            code=code,
            redirect_uri=identity_providers.redirect_uri(self.smart, provider),
            code_verifier=asked.verifier,
        )
        try:
            signed, headers = await self._verify_id_token(provider, asked.endpoints, body)
            reply = await self.outside.post_form(asked.endpoints.token, signed, headers)
        except (NoResponseError, InvalidResponseError, LookupError):  # LookupError: a secret or key of ours that is not to be had
            raise ProviderUnavailableError(way) from None
        if reply.status >= 500:
            raise ProviderUnavailableError(way)
        if reply.status != 200:
            raise SignInFailedError(_REFUSED, way)
        keys = await self._json(asked.endpoints.jwks, way)
        access = as_text(reply.body.get("access_token"))
        expected = ExpectedClaims(provider.issuer, provider.client_id, asked.nonce, access, asked.since)
        try:
            claims = await verify(reply.body.get("id_token"), keys, expected, self.smart.now())
        except InvalidIdTokenError:
            raise SignInFailedError(_UNPROVEN, way) from None
        return str(claims["sub"])

    async def _verify_id_token(self, provider: Provider, endpoints: _Endpoints, body: str) -> client_authentication.AuthenticatedRequest:
        if provider.method == "private_key_jwt":
            alg = next((alg for alg in _SIGNING if alg in endpoints.signing), _SIGNING[-1])
            return await client_authentication.authenticate_by_key(
                self.smart, provider.client_id, endpoints.token, endpoints.token, body, alg
            )
        by_post = "client_secret_post" in endpoints.auth and "client_secret_basic" not in endpoints.auth
        method = "client_secret_post" if by_post else "client_secret_basic"
        secret = identity_providers.secret_of(self.smart, provider)
        return client_authentication.authenticate_by_secret(provider.client_id, secret, method, endpoints.token, body)

    async def _json(self, url: str, way: Continuation) -> dict[str, Any]:
        try:
            reply = await self.outside.get(url)
        except (NoResponseError, InvalidResponseError):
            raise ProviderUnavailableError(way) from None
        if reply.status != 200:
            raise ProviderUnavailableError(way)
        return reply.body


def _check_answer(provider: Provider, asked: _PendingSignIn, given: dict[str, str], way: Continuation) -> None:
    # Who answers comes first, errors included: another server's answer must not pass for this one's (RFC 9207 2.4).
    if given.get("iss", provider.issuer) != provider.issuer or (asked.endpoints.names_itself and "iss" not in given):
        raise SignInFailedError(_STALE, way)
    if "error" in given:
        raise SignInFailedError(_DENIED if given["error"] == "access_denied" else _REFUSED, way)
    if not given.get("code"):
        raise SignInFailedError(_REFUSED, way)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
