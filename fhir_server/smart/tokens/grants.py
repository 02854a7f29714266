"""The three OAuth grant types, as Authlib classes that use this server's records.

A request reads a code while it is checked, *claims* it just before tokens are issued and *consumes* it just after.  So a wrong
verifier does not consume a code, only one of two parallel exchanges gets tokens, and no token survives a revocation in between.
A second use of a code revokes the family.  For refresh tokens see :mod:`~fhir_server.smart.tokens.rotation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError, InvalidScopeError, OAuth2Error
from authlib.oauth2.rfc6749 import grants as authlib
from authlib.oauth2.rfc7636 import CodeChallenge

from fhir_server.smart.accounts import session_use, sessions
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.authlib import run_on_loop
from fhir_server.smart.core.context import CODE_LIFE, GRANT_LIFE, REFRESH_LIFE, SECOND, SmartContext, digest, new_secret
from fhir_server.smart.core.scopes import narrow_scopes
from fhir_server.smart.core.token_grants import CODE, REFRESH, TokenGrant, find, session_end
from fhir_server.smart.tokens import dpop, launch, launch_parameters, rotation, tokens
from fhir_server.smart.tokens.tokens import claim_code, consume_code, current_scope, find_account, is_approved, issue, revoke_if_reused

METHODS = ("private_key_jwt", "client_secret_basic", "client_secret_post", "none")


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's consent: the grant, the time of sign-in in seconds, and the launch handle that it consumes ("": none).

    ``signed_in`` is the key of the session in which the person decided.
    """

    token_grant: TokenGrant
    auth_time: int
    launch: str = ""
    signed_in: str = ""


class Code(TokenGrant, frozen=True):
    """The stored content of an authorization code."""

    redirect_uri: str = ""
    challenge: str = ""
    nonce: str = ""
    signed_in: str = ""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A code or refresh token that a client presented, with the methods that Authlib calls.  ``key`` is its digest."""

    key: str
    token_grant: TokenGrant

    def check_client(self, client: Any) -> bool:
        return bool(self.token_grant.client_id == client.get_client_id())

    def get_scope(self) -> str:
        return self.token_grant.scope


@dataclass(frozen=True, slots=True)
class StoredRefreshToken(StoredToken):
    """A refresh token that a client presented, and the tokens that have replaced it, if it has been used."""

    text: str
    successor: rotation.Successor | None


@dataclass(frozen=True, slots=True)
class StoredCode(StoredToken):
    """An authorization code that a client presented."""

    token_grant: Code
    code_challenge_method = "S256"

    @property
    def code_challenge(self) -> str:
        return self.token_grant.challenge

    def get_redirect_uri(self) -> str:
        return self.token_grant.redirect_uri

    def get_nonce(self) -> str:
        return self.token_grant.nonce


def _response(grant: Any, token_grant: TokenGrant, issued: tokens.IssuedTokens) -> dict[str, Any]:
    grant.request.token_grant = token_grant
    body = {
        "access_token": issued.access,
        "token_type": "DPoP" if token_grant.jkt else "Bearer",
        "expires_in": issued.lifetime // SECOND,
        "scope": token_grant.scope,
        **launch_parameters.build(grant.server.smart, token_grant),
    }
    return body | ({"refresh_token": issued.refresh} if issued.refresh else {})


def _use_proof(grant: Any) -> None:
    """Use up the request's proof of possession, if it has one.  Raises OAuth2Error if another request has used it."""
    use = grant.request.proof_use
    if use and not run_on_loop(dpop.take, grant.server.smart, use):
        raise OAuth2Error(error="invalid_dpop_proof", description="The proof was used before.")


def _open_account(grant: Any, token: StoredToken) -> User | None:
    """The account that the token belongs to.

    None if it is closed, no longer backs the grant, or may not (staff) give it, and if the app has changed since.
    """
    smart: SmartContext = grant.server.smart
    granted = token.token_grant
    if not grant.request.client.record.is_as_allowed(granted.app, granted.since or granted.issued):
        return None
    user: User | None = run_on_loop(find_account, smart.store, granted)
    return user if user is not None and run_on_loop(is_approved, smart, user, granted) else None


class AuthorizationCode(authlib.AuthorizationCodeGrant):
    """RFC 6749 4.1 with SMART's launch parameters."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def generate_authorization_code(self) -> str:
        return new_secret()

    def save_authorization_code(self, code: str, request: Any) -> None:
        smart: SmartContext = self.server.smart
        decision: Decision = request.user
        if decision.launch and not run_on_loop(launch.consume, smart.store, decision.launch, smart.now()):
            raise InvalidRequestError("The launch was used before.", redirect_uri=request.payload.redirect_uri)
        now = smart.now()
        record = Code(
            **msgspec.structs.asdict(decision.token_grant) | {"issued": now, "expires": now + CODE_LIFE, "auth_time": decision.auth_time},
            redirect_uri=request.payload.redirect_uri,
            challenge=request.payload.data.get("code_challenge", ""),
            nonce=request.payload.data.get("nonce", ""),
            signed_in=decision.signed_in,
        )
        if jkt := request.payload.data.get("dpop_jkt", ""):
            record = msgspec.structs.replace(record, jkt=jkt)
        run_on_loop(grant_index.put, smart.store, msgspec.structs.replace(decision.token_grant, issued=now, expires=record.expires))
        run_on_loop(smart.store.key_values.put, CODE, digest(code), msgspec.json.encode(record), record.expires, record.family)

    def query_authorization_code(self, code: str, client: Any) -> StoredCode | None:
        smart: SmartContext = self.server.smart
        key, client_id = digest(code), client.get_client_id()
        text = run_on_loop(smart.store.key_values.get, CODE, key, smart.now())
        if text is None:
            run_on_loop(revoke_if_reused, smart.store, key, client_id, smart.now())
            return None
        stored = StoredCode(key, msgspec.json.decode(text, type=Code))
        if not run_on_loop(_is_session_open, smart, stored.token_grant):
            return None
        has_key = stored.token_grant.jkt in ("", self.request.jkt)  # the app may bind its code to the key (RFC 9449 10)
        return stored if stored.check_client(client) and has_key else None

    def authenticate_user(self, authorization_code: StoredCode) -> User | None:
        """Claim the code and return its account; None if it was claimed before or the account is closed."""
        smart: SmartContext = self.server.smart
        key, token_grant, user = authorization_code.key, authorization_code.token_grant, _open_account(self, authorization_code)
        if user is None or run_on_loop(claim_code, smart.store, key, token_grant, smart.now()):
            return user
        run_on_loop(revoke_if_reused, smart.store, key, token_grant.client_id, smart.now())
        return None

    def generate_token(self, user: Any = None, scope: Any = None, **_: Any) -> dict[str, Any]:
        smart: SmartContext = self.server.smart
        _use_proof(self)
        code = self.request.authorization_code.token_grant
        token_grant = TokenGrant(**{name: getattr(code, name) for name in TokenGrant.__struct_fields__})
        token_grant = msgspec.structs.replace(token_grant, jkt=self.request.jkt)
        refresh = token_grant.scope if {"offline_access", "online_access"} & set(token_grant.scope.split()) else None
        return _response(self, token_grant, run_on_loop(_issue, smart, token_grant, refresh))

    def delete_authorization_code(self, authorization_code: StoredCode) -> None:
        """The last step.  Raises InvalidGrantError if the grant was revoked, or the person has signed out, in the meantime."""
        smart: SmartContext = self.server.smart
        if not run_on_loop(consume_code, smart.store, authorization_code.key, authorization_code.token_grant, smart.now()):
            self.request.token_grant = None
            raise InvalidGrantError
        if not run_on_loop(_is_session_open, smart, authorization_code.token_grant):
            run_on_loop(smart.store.key_values.delete_family, authorization_code.token_grant.family)
            self.request.token_grant = None
            raise InvalidGrantError


class RefreshToken(authlib.RefreshTokenGrant):
    """RFC 6749 6, with a new refresh token at every use."""

    TOKEN_ENDPOINT_AUTH_METHODS = (*METHODS, "refresh_token")

    def authenticate_refresh_token(self, refresh_token: str) -> StoredRefreshToken | None:
        smart: SmartContext = self.server.smart
        key, successor = digest(refresh_token), None
        token_grant = run_on_loop(find, smart.store, REFRESH, key, smart.now())
        if token_grant is None:
            successor = run_on_loop(rotation.find_successor, smart, refresh_token, self.request.client.get_client_id())
            if successor is None:
                return None
            token_grant = successor.whole
        if not self._has_key(token_grant):
            return None
        if token_grant.session and not run_on_loop(session_end, smart.store, token_grant.session, smart.now()):
            return None
        return StoredRefreshToken(key, token_grant, refresh_token, successor)

    def _has_key(self, token_grant: TokenGrant) -> bool:
        """Whether the request proves the key of a bound token: that very key for a public client, any for one that authenticates."""
        jkt, is_public = self.request.jkt, self.request.client.record.method == "none"
        return not token_grant.jkt or (jkt == token_grant.jkt if is_public else bool(jkt))

    def authenticate_user(self, refresh_token: StoredRefreshToken) -> User:
        user = _open_account(self, refresh_token)
        if user is None:
            raise InvalidGrantError
        return user

    def issue_token(self, user: User, refresh_token: StoredRefreshToken) -> dict[str, Any]:
        """New tokens, or those of the first use again.  Raises InvalidGrantError if there are none for this request."""
        smart: SmartContext = self.server.smart
        _use_proof(self)
        granted, successor = refresh_token.token_grant, refresh_token.successor
        jkt = self.request.jkt
        requested = msgspec.structs.replace(granted, scope=self.request.payload.scope or granted.scope, jkt=jkt)
        narrowed = msgspec.structs.replace(requested, scope=current_scope(self.request.client.record, requested))
        if granted.session:
            run_on_loop(session_use.extend, smart.store, granted.session, smart.now())
        if successor is None:
            life = run_on_loop(_refresh_life, smart, granted)
            issued = run_on_loop(rotation.rotate, smart, refresh_token.text, granted, narrowed, life)
            if issued is not None:
                return _response(self, narrowed, issued)
            successor = run_on_loop(rotation.find_successor, smart, refresh_token.text, granted.client_id)
        if successor is None or set(successor.access.scope.split()) != set(narrowed.scope.split()) or successor.access.jkt != jkt:
            raise InvalidGrantError  # with other scopes it is another request, and the tokens are for those of the first
        return _response(self, successor.access, successor.tokens)

    def revoke_old_credential(self, refresh_token: StoredRefreshToken) -> None:
        """Does nothing: the old token was replaced when the new ones were issued."""


class ClientCredentials(authlib.ClientCredentialsGrant):
    """RFC 6749 4.4 for SMART Backend Services: system/ scopes, access for five minutes, no refresh token."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt",)

    def _scopes(self) -> tuple[str, ...]:
        record = self.request.client.record
        scopes = narrow_scopes(self.request.payload.scope or "", record.scopes, record.levels)
        return tuple(scope for scope in scopes if scope.startswith("system/"))

    def validate_requested_scope(self) -> None:
        if not self._scopes():
            raise InvalidScopeError

    def generate_token(self, user: Any = None, scope: Any = None, **_: Any) -> dict[str, Any]:
        _use_proof(self)
        token_grant = TokenGrant(self.request.client.get_client_id(), " ".join(self._scopes()), new_secret(), jkt=self.request.jkt)
        return _response(self, token_grant, run_on_loop(_issue, self.server.smart, token_grant, None))


async def _issue(smart: SmartContext, token_grant: TokenGrant, refresh: str | None) -> tokens.IssuedTokens:
    """Issue the tokens of a grant, with a refresh token if ``refresh`` scopes are given."""
    life = await _refresh_life(smart, token_grant)
    return await issue(smart.store, token_grant, smart.now(), refresh=refresh if life > 0 else None, refresh_life=life)


async def _is_session_open(smart: SmartContext, code: Code) -> bool:
    """Whether the session in which the person decided is still open.  A code without one is of an earlier version."""
    return not code.signed_in or bool(await session_end(smart.store, code.signed_in, smart.now()))


async def _refresh_life(smart: SmartContext, token_grant: TokenGrant) -> int:
    """How long a new refresh token is valid: if the grant ends with a session (``online_access``), as long as that."""
    if token_grant.session:
        return await sessions.remaining_lifetime(smart, token_grant.session)
    now = smart.now()
    return min(REFRESH_LIFE, (token_grant.since or now) + GRANT_LIFE - now)


def is_without_pkce(client: Client, parameters: Mapping[str, str]) -> bool:
    """Whether a request may lack PKCE, and does: of an EHR launch, by a confidential client that an operator has exempted.

    The launch handle, which is for one client and one person, and the client's own authentication bind its code instead.
    """
    is_exempt = client.options.without_pkce and client.method != "none" and bool(parameters.get("launch"))
    return is_exempt and not ({"code_challenge", "code_challenge_method"} & set(parameters))


class Challenge(CodeChallenge):
    """PKCE (RFC 7636) with S256 only: required of every client, but for :func:`is_without_pkce`."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: Any) -> None:
        parameters = grant.request.payload.data
        if is_without_pkce(grant.request.client.record, parameters):
            return
        if not parameters.get("code_challenge") or parameters.get("code_challenge_method") not in self.SUPPORTED_CODE_CHALLENGE_METHOD:
            raise InvalidRequestError("A code_challenge with the method S256 is required.")
        super().validate_code_challenge(grant, redirect_uri)
