"""Apps that register themselves (RFC 7591) and look after their registration (RFC 7592).

Such an app acts for persons and never for itself, gets no clearance and no trust, sends people back to https or to their
own device only, and bears a name that is nobody else's.
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

from fhir_server.smart.clients import clients, names, software_statements
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.clients.jwks_cache import SHORTEST, UnreadableKeysError, long_enough, read
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest, new_secret
from fhir_server.smart.core.scopes import NAMED, narrowed
from fhir_server.web.public_fetch import Hosts, is_allowed, is_loopback

Error = Literal["invalid_redirect_uri", "invalid_client_metadata", "invalid_software_statement", "unapproved_software_statement"]
_SHAPE: Final = json.loads((files("fhir_server.smart.clients") / "registration.schema.json").read_text(encoding="utf-8"))
_SCHEMA: Final = Draft202012Validator(_SHAPE)
_LEVELS: Final = frozenset({"patient", "user"})
_MOST: Final = " ".join((*NAMED, "patient/*.cruds", "user/*.cruds"))
_USUAL: Final = "openid fhirUser launch launch/patient offline_access patient/*.rs"
_METHODS: Final[dict[str, clients.Method]] = {
    "none": "none",
    "client_secret_basic": "client_secret",
    "client_secret_post": "client_secret",
    "private_key_jwt": "private_key_jwt",
}
# What is kept as the client said it; the rest has a field of its own in Client.
_KEPT: Final = (
    *("token_endpoint_auth_method", "grant_types", "response_types", "client_uri", "logo_uri", "tos_uri", "policy_uri"),
    *("contacts", "software_id", "software_version", "software_statement"),
)
# What a client may send back in an update only as it was told it, or not at all (RFC 7592 2.2).
_OURS: Final = ("registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at")
_NAMING: Final = "naming-client"
_TAKEN: Final = "The name (client_name) is taken, or too much like one that is."


class RegistrationError(Exception):
    """Metadata that cannot be registered; ``error`` is RFC 7591's, the text for the developer.

    ``member`` is the one that is missing or has not the form it needs; "" where it is something else.
    """

    def __init__(self, error: Error, text: str, member: str = "") -> None:
        super().__init__(text)
        self.error: Error = error
        self.member = member


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A registration with what is shown once: the secret ("" for none) and the token that manages it."""

    client: Client
    secret: str
    manager: str


async def register(smart: SmartContext, metadata: Any) -> RegisteredClient:
    """Register a new app.  Raises Refused."""
    manager = new_secret()
    blank = Client(f"app-{new_secret()[:22]}", "", "app", "none", "", registration_token_hash=digest(manager), registered_at=smart.now())
    done = await _describe(smart, blank, metadata, manager)
    async with _naming(smart, done.client):
        await clients.save(smart.store, done.client)
    return done


async def update(smart: SmartContext, client: Client, metadata: Any, manager: str) -> RegisteredClient | None:
    """Replace what the app said of itself; what it leaves out goes (RFC 7592 2.2).  None if it is registered no more.  Raises Refused."""
    given = metadata if isinstance(metadata, dict) else {}
    if given.get("client_id") != client.client_id or any(name in given for name in _OURS):
        raise RegistrationError("invalid_client_metadata", f"The client_id must be sent, and none of {', '.join(_OURS)}.")
    if "client_secret" in given and not client.secret_fits(str(given["client_secret"])):
        raise RegistrationError("invalid_client_metadata", "The client_secret is not the one that is registered.")
    done = await _describe(smart, client, metadata, manager)
    async with _naming(smart, done.client):
        return done if await clients.change(smart.store, done.client, smart.now()) else None


async def authenticate_manager(smart: SmartContext, client_id: str, token: str) -> Client | None:
    """The registration this token manages."""
    client = await clients.find(smart.store, client_id)
    return client if client and client.registration_token_hash and token and client.registration_token_hash == digest(token) else None


def document(smart: SmartContext, done: RegisteredClient) -> dict[str, Any]:
    """A registration as its app is told it (RFC 7591 3.2.1)."""
    client = done.client
    told: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": client.registered_at // SECOND,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "scope": client.scopes,
        **client.metadata,
        "registration_access_token": done.manager,
        "registration_client_uri": f"{smart.origin}/oauth/register/{client.client_id}",
    }
    if client.jwks:
        told["jwks"] = client.jwks
    if client.jwks_uri:
        told["jwks_uri"] = client.jwks_uri
    if done.secret:
        told |= {"client_secret": done.secret, "client_secret_expires_at": 0}
    return told


async def _describe(smart: SmartContext, before: Client, metadata: Any, manager: str) -> RegisteredClient:
    _validate(metadata)
    stated, publisher = await _apply_software_statement(smart, metadata)
    _validate(stated)
    for uri in stated["redirect_uris"]:
        if not _returnable(uri):
            raise RegistrationError(
                "invalid_redirect_uri", "Redirect URIs are https, or http on 127.0.0.1, [::1] or localhost, without a fragment."
            )
    method = _METHODS[stated.setdefault("token_endpoint_auth_method", "client_secret_basic")]
    client = msgspec.structs.replace(
        before,
        name=stated["client_name"],
        method=method,
        scopes=_scopes(stated.get("scope")),
        redirect_uris=tuple(stated["redirect_uris"]),
        homepage=stated.get("client_uri", ""),
        jwks=_keys(stated) if method == "private_key_jwt" else {},
        jwks_uri=_keys_address(smart, stated) if method == "private_key_jwt" else "",
        secret_hash=before.secret_hash if method == "client_secret" else "",
        metadata={name: stated[name] for name in _KEPT if name in stated},
        publisher=publisher,
    )
    secret = ""
    if method == "client_secret" and not client.secret_hash:
        client, secret = clients.with_new_secret(client)
    return RegisteredClient(client, secret, manager)


@asynccontextmanager
async def _naming(smart: SmartContext, client: Client) -> AsyncIterator[None]:
    """To keep a registration in, under a name that is nobody else's.  Of several at once that would look alike, one gets here."""
    held, secrets = digest(names.skeleton(client.name)), smart.store.key_values
    if not await secrets.put_if_absent(_NAMING, held, b"", smart.now() + MINUTE):
        raise RegistrationError("invalid_client_metadata", _TAKEN)
    try:
        await _check_name(smart, client.name, client.client_id)
        yield
    except ValueError as error:
        raise RegistrationError("invalid_client_metadata", str(error)) from None
    finally:
        await secrets.pop(_NAMING, held, 0)


def _validate(metadata: Any) -> None:
    problem = next(iter(sorted(_SCHEMA.iter_errors(metadata), key=lambda error: [str(step) for step in error.absolute_path])), None)
    if problem is None:
        return
    place = ".".join(str(step) for step in problem.absolute_path)
    member = place.partition(".")[0]
    error: Error = "invalid_redirect_uri" if member == "redirect_uris" else "invalid_client_metadata"
    raise RegistrationError(error, f"{place or 'The metadata'} is not as RFC 7591 and this server need it ({problem.validator}).", member)


async def _apply_software_statement(smart: SmartContext, metadata: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The metadata with what a trusted publisher states in its place, and who that is ("": nobody)."""
    given = {"grant_types": ["authorization_code"], "response_types": ["code"]} | metadata
    statement = metadata.get("software_statement")
    if statement is None:
        return given, ""
    try:
        claims = await software_statements.verified_claims(smart.store, statement, smart.now())
    except software_statements.UnapprovedStatementError:
        raise RegistrationError(
            "unapproved_software_statement", "The software statement is by a publisher who is not trusted here."
        ) from None
    except software_statements.InvalidStatementError:
        raise RegistrationError("invalid_software_statement", "The software statement is not sound.") from None
    known = set(_SHAPE["properties"]) - {"software_statement"}
    return given | {name: value for name, value in claims.items() if name in known}, str(claims["iss"])


async def _check_name(smart: SmartContext, name: str, client_id: str) -> None:
    others = [one.name for one in await clients.list_all(smart.store) if one.client_id != client_id]
    if not names.readable(name):
        raise RegistrationError(
            "invalid_client_metadata", "The name (client_name) has characters that cannot be seen, or spaces at its ends."
        )
    if names.claims(name, smart.organization) or any(names.imitates(name, taken) for taken in others):
        raise RegistrationError("invalid_client_metadata", _TAKEN)


def _returnable(uri: str) -> bool:
    if not is_allowed(uri, Hosts.PUBLIC_OR_LOCAL) or "*" in uri:
        return False
    parts = urlsplit(uri)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _scopes(asked: str | None) -> str:
    kept = " ".join(narrowed(_USUAL if asked is None else asked, _MOST, _LEVELS))
    if not kept:
        raise RegistrationError(
            "invalid_client_metadata",
            "An app that registers itself may ask for patient/ and user/ scopes, and for launch and sign-in.",
            "scope",
        )
    return kept


def _keys(stated: dict[str, Any]) -> dict[str, Any]:
    if ("jwks" in stated) == ("jwks_uri" in stated):
        raise RegistrationError("invalid_client_metadata", "private_key_jwt needs jwks_uri or jwks, and not both.")
    jwks: dict[str, Any] = stated.get("jwks", {})
    try:
        sound = not jwks or all(long_enough(key) for key in read(jwks))
    except UnreadableKeysError:
        raise RegistrationError("invalid_client_metadata", "The jwks cannot be read.") from None
    if not sound:
        raise RegistrationError("invalid_client_metadata", f"An RSA key of the jwks has less than {SHORTEST} bits.")
    return jwks


def _keys_address(smart: SmartContext, stated: dict[str, Any]) -> str:
    url: str = stated.get("jwks_uri", "")
    if url and not is_allowed(url, Hosts.of(smart.is_demo)):
        raise RegistrationError("invalid_client_metadata", "The jwks_uri must be https.")
    return url
