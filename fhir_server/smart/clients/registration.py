"""Dynamic client registration (RFC 7591) and its management (RFC 7592).

A client that registers itself acts only for persons, has no clearance and is no trusted writer, redirects only to https or
to the person's own device, and has a name that nobody can confuse with another client's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from jsonschema import Draft202012Validator

from fhir_server.smart.clients import clients, names, options, sectors, software_statements
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.clients.jwks_cache import MIN_RSA_BITS, UnreadableKeysError, is_strong_key, parse_jwks
from fhir_server.smart.clients.options import ClientOptions
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest, new_secret
from fhir_server.smart.core.scopes import NAMED_SCOPES, narrow_scopes
from fhir_server.web.public_fetch import Hosts, is_allowed, is_loopback

Error = Literal["invalid_redirect_uri", "invalid_client_metadata", "invalid_software_statement", "unapproved_software_statement"]
_SCHEMA_DOCUMENT: Final = json.loads((files("fhir_server.smart.clients") / "registration.schema.json").read_text(encoding="utf-8"))
_VALIDATOR: Final = Draft202012Validator(_SCHEMA_DOCUMENT)
_LEVELS: Final = frozenset({"patient", "user"})
_ALLOWED_SCOPES: Final = " ".join((*NAMED_SCOPES, "patient/*.cruds", "user/*.cruds"))
_DEFAULT_SCOPES: Final = "openid fhirUser launch launch/patient offline_access patient/*.rs"
_METHODS: Final[dict[str, clients.Method]] = {
    "none": "none",
    "client_secret_basic": "client_secret",
    "client_secret_post": "client_secret",
    "private_key_jwt": "private_key_jwt",
}
# Metadata stored as sent.  All other metadata have their own fields in Client.
_STORED_AS_SENT: Final = (
    *("token_endpoint_auth_method", "grant_types", "response_types", "client_uri", "logo_uri", "tos_uri", "policy_uri"),
    *("contacts", "software_id", "software_version", "software_statement"),
)
# Members that an update must not contain (RFC 7592 2.2).
_SERVER_ASSIGNED: Final = ("registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at")
_NAME_LOCK: Final = "naming-client"
_TAKEN: Final = "The name (client_name) is already in use, or too similar to one that is."


class RegistrationError(Exception):
    """Metadata that cannot be registered: ``error`` is the error code of RFC 7591, the text is for the developer.

    ``member`` is the missing or malformed member; "" for any other error.
    """

    def __init__(self, error: Error, text: str, member: str = "") -> None:
        super().__init__(text)
        self.error: Error = error
        self.member = member


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A registration with the secrets that are displayed once: client secret ("": none) and registration access token."""

    client: Client
    secret: str
    registration_token: str


async def register(smart: SmartContext, metadata: Any) -> RegisteredClient:
    """Register a new app.  Raises RegistrationError."""
    token = new_secret()
    unnamed = Client(f"app-{new_secret()[:22]}", "", "app", "none", "", registration_token_hash=digest(token), registered_at=smart.now())
    registered = await _describe(smart, unnamed, metadata, token)
    async with _with_unique_name(smart, registered.client):
        await clients.save(smart.store, registered.client)
    return registered


async def update(smart: SmartContext, client: Client, metadata: Any, token: str) -> RegisteredClient | None:
    """Replace the metadata of a registration; omitted members are removed (RFC 7592 2.2).

    None if the registration was removed in the meantime.  Raises RegistrationError.
    """
    members = metadata if isinstance(metadata, dict) else {}
    if members.get("client_id") != client.client_id or any(name in members for name in _SERVER_ASSIGNED):
        raise RegistrationError(
            "invalid_client_metadata", f"An update must contain the client_id, and none of {', '.join(_SERVER_ASSIGNED)}."
        )
    if "client_secret" in members and not client.matches_secret(str(members["client_secret"])):
        raise RegistrationError("invalid_client_metadata", "The client_secret does not match the registration.")
    registered = await _describe(smart, client, metadata, token)
    async with _with_unique_name(smart, registered.client):
        return registered if await clients.change(smart.store, registered.client, smart.now()) else None


async def authenticate_manager(smart: SmartContext, client_id: str, token: str) -> Client | None:
    """The registration that this registration access token belongs to, or None."""
    client = await clients.find(smart.store, client_id)
    return client if client and client.registration_token_hash and token and client.registration_token_hash == digest(token) else None


def client_information(smart: SmartContext, registered: RegisteredClient) -> dict[str, Any]:
    """The client information response (RFC 7591 3.2.1)."""
    client = registered.client
    information: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": client.registered_at // SECOND,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "scope": client.scopes,
        **client.metadata,
        **msgspec.to_builtins(client.options),
        "registration_access_token": registered.registration_token,
        "registration_client_uri": f"{smart.origin}/oauth/register/{client.client_id}",
    }
    if client.jwks:
        information["jwks"] = client.jwks
    if client.jwks_uri:
        information["jwks_uri"] = client.jwks_uri
    if registered.secret:
        information |= {"client_secret": registered.secret, "client_secret_expires_at": 0}
    return information


async def _describe(smart: SmartContext, before: Client, metadata: Any, token: str) -> RegisteredClient:
    _validate(metadata)
    effective, publisher = await _apply_software_statement(smart, metadata)
    _validate(effective)
    for uri in effective["redirect_uris"]:
        if not _is_allowed_redirect(uri):
            raise RegistrationError(
                "invalid_redirect_uri", "A redirect URI must be https, or http on 127.0.0.1, [::1] or localhost, without a fragment."
            )
    method = _METHODS[effective.setdefault("token_endpoint_auth_method", "client_secret_basic")]
    client = msgspec.structs.replace(
        before,
        name=effective["client_name"],
        method=method,
        scopes=_scopes(effective.get("scope")),
        redirect_uris=tuple(effective["redirect_uris"]),
        homepage=effective.get("client_uri", ""),
        jwks=_keys(effective) if method == "private_key_jwt" else {},
        jwks_uri=_jwks_uri(smart, effective) if method == "private_key_jwt" else "",
        secret_hash=before.secret_hash if method == "client_secret" else "",
        metadata={name: effective[name] for name in _STORED_AS_SENT if name in effective},
        publisher=publisher,
        options=await _options(smart, effective),
    )
    if before.redirect_uris and client.identity != before.identity:
        client = msgspec.structs.replace(client, renamed_at=smart.now())
    secret = ""
    if method == "client_secret" and not client.secret_hash:
        client, secret = clients.with_new_secret(client)
    return RegisteredClient(client, secret, token)


@asynccontextmanager
async def _with_unique_name(smart: SmartContext, client: Client) -> AsyncIterator[None]:
    """Lock a client's name and check it.  Store the registration inside.  Of parallel registrations with similar names, one gets in."""
    key_values, held = smart.store.key_values, list[str]()
    try:
        # Of two names that look alike, one of these forms is the same.
        for lock in sorted({digest(names.bare(client.name)), digest(names.skeleton(client.name))}):
            if not await key_values.put_if_absent(_NAME_LOCK, lock, b"", smart.now() + MINUTE):
                raise RegistrationError("invalid_client_metadata", _TAKEN)
            held.append(lock)
        await _check_name(smart, client.name, client.client_id)
        yield
    except ValueError as error:
        raise RegistrationError("invalid_client_metadata", str(error)) from None
    finally:
        for lock in held:
            await key_values.pop(_NAME_LOCK, lock, 0)


def _validate(metadata: Any) -> None:
    problem = next(iter(sorted(_VALIDATOR.iter_errors(metadata), key=lambda error: [str(step) for step in error.absolute_path])), None)
    if problem is None:
        return
    path = ".".join(str(step) for step in problem.absolute_path)
    member = path.partition(".")[0]
    error: Error = "invalid_redirect_uri" if member == "redirect_uris" else "invalid_client_metadata"
    raise RegistrationError(
        error, f"{path or 'The metadata'} does not have the form that RFC 7591 and this server require ({problem.validator}).", member
    )


async def _apply_software_statement(smart: SmartContext, metadata: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The metadata, overridden by the claims of its software statement, and the statement's publisher ("": no statement)."""
    sent = {"grant_types": ["authorization_code"], "response_types": ["code"]} | metadata
    statement = metadata.get("software_statement")
    if statement is None:
        return sent, ""
    try:
        claims = await software_statements.verify(smart.store, statement, smart.now())
    except software_statements.UnapprovedStatementError:
        raise RegistrationError(
            "unapproved_software_statement", "This server does not trust the publisher of the software statement."
        ) from None
    except software_statements.InvalidStatementError:
        raise RegistrationError("invalid_software_statement", "The software statement is invalid or has expired.") from None
    known = set(_SCHEMA_DOCUMENT["properties"]) - {"software_statement"}
    return sent | {name: value for name, value in claims.items() if name in known}, str(claims["iss"])


async def _check_name(smart: SmartContext, name: str, client_id: str) -> None:
    if not names.is_readable(name):
        raise RegistrationError(
            "invalid_client_metadata", "The name (client_name) contains invisible characters, or spaces at its ends or side by side."
        )
    if names.claims_organization(name, smart.organization) or await _is_taken(smart, name, client_id):
        raise RegistrationError("invalid_client_metadata", _TAKEN)


async def _is_taken(smart: SmartContext, name: str, client_id: str) -> bool:
    return any(other.client_id != client_id for other in await clients.find_similar(smart.store, name))


def _is_allowed_redirect(uri: str) -> bool:
    if not is_allowed(uri, Hosts.PUBLIC_OR_LOCAL) or "*" in uri:
        return False
    parts = urlsplit(uri)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _scopes(requested: str | None) -> str:
    scopes = " ".join(narrow_scopes(_DEFAULT_SCOPES if requested is None else requested, _ALLOWED_SCOPES, _LEVELS))
    if not scopes:
        raise RegistrationError(
            "invalid_client_metadata",
            "An app that registers itself may request patient/ and user/ scopes and the launch and sign-in scopes.",
            "scope",
        )
    return scopes


async def _options(smart: SmartContext, effective: dict[str, Any]) -> ClientOptions:
    sent = {name: effective[name] for name in options.REGISTERED if name in effective}
    registered = msgspec.convert(sent, ClientOptions)
    if not all(_is_allowed_redirect(uri) for uri in registered.post_logout_redirect_uris):
        raise RegistrationError("invalid_redirect_uri", "A post-logout redirect URI must have the form of a redirect URI.")
    try:
        options.check(registered, tuple(effective["redirect_uris"]), Hosts.of(smart.is_demo))
    except ValueError as error:
        raise RegistrationError("invalid_client_metadata", str(error)) from None
    if registered.sector_identifier_uri and not await sectors.lists(smart, registered.sector_identifier_uri, effective["redirect_uris"]):
        raise RegistrationError("invalid_client_metadata", "The sector_identifier_uri does not list all redirect URIs.")
    return registered


def _keys(effective: dict[str, Any]) -> dict[str, Any]:
    if ("jwks" in effective) == ("jwks_uri" in effective):
        raise RegistrationError("invalid_client_metadata", "private_key_jwt requires either jwks_uri or jwks.")
    jwks: dict[str, Any] = effective.get("jwks", {})
    try:
        strong = not jwks or all(is_strong_key(key) for key in parse_jwks(jwks))
    except UnreadableKeysError:
        raise RegistrationError("invalid_client_metadata", "The jwks is not a valid JWK Set.") from None
    if not strong:
        raise RegistrationError("invalid_client_metadata", f"An RSA key of the jwks has fewer than {MIN_RSA_BITS} bits.")
    return jwks


def _jwks_uri(smart: SmartContext, effective: dict[str, Any]) -> str:
    url: str = effective.get("jwks_uri", "")
    if url and not is_allowed(url, Hosts.of(smart.is_demo)):
        raise RegistrationError("invalid_client_metadata", "The jwks_uri must be https.")
    return url
