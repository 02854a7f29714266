"""Registered clients: who may ask, how they prove it, and how much they may ask for."""

from __future__ import annotations

import hmac
import re
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from fhir_server.smart.core.context import HOUR, digest, new_secret
from fhir_server.smart.core.registry import Register
from fhir_server.smart.core.token_grants import revoke_where
from fhir_server.store import Store
from fhir_server.web.public_fetch import Hosts, is_allowed

Kind = Literal["app", "backend", "partner"]
Method = Literal["none", "client_secret", "private_key_jwt"]
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#-\[\]-~]*", re.ASCII)
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_REMOVED: Final = "removed-client"
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}", re.ASCII)


class Client(msgspec.Struct, frozen=True):
    """One registration.

    ``kind``       app: acts for a person; backend: acts for itself with system/ scopes; partner: another health system's app
    ``method``     none (public), client_secret (Basic or body), private_key_jwt
    ``secret``     SHA-256 of the secret, for client_secret
    ``jwks``       public keys as a JWK Set, for private_key_jwt
    ``jwks_uri``   or the address where the client publishes them
    ``scopes``     most it may be granted, space-separated
    ``clearance``  sensitive-category codes a backend may receive, "*" for all; a person's app sees what the person sees
    ``trusted``    may write resources with labels of its own (a feed from the institution itself)
    ``launch_uri`` where an EHR launch opens the app; "" for one that is not launched from our pages
    ``metadata``   what else a client that registered itself said of itself (RFC 7591), as it said it
    ``manager``    SHA-256 of the token with which it manages its registration (RFC 7592); "" for an operator's entry
    ``publisher``  who vouched for it with a software statement
    ``registered`` when it registered itself, in microseconds
    """

    client_id: str
    name: str
    kind: Kind
    method: Method
    scopes: str
    redirect_uris: tuple[str, ...] = ()
    secret_hash: str = msgspec.field(default="", name="secret")
    jwks: dict[str, Any] = {}
    clearance: tuple[str, ...] = ()
    trusted: bool = False
    homepage: str = ""
    jwks_uri: str = ""
    launch_uri: str = ""
    metadata: dict[str, Any] = {}
    registration_token_hash: str = msgspec.field(default="", name="manager")
    publisher: str = ""
    registered_at: int = msgspec.field(default=0, name="registered")

    @property
    def levels(self) -> frozenset[str]:
        """The scope levels it can have: a backend acts for no person, an app for nothing but persons."""
        return frozenset({"system"}) if self.kind == "backend" else frozenset({"patient", "user"})

    def secret_fits(self, secret: str) -> bool:
        return self.method == "client_secret" and hmac.compare_digest(self.secret_hash, digest(secret))

    def host(self, redirect_uri: str) -> str:
        """Where the answer goes, for the consent page: a host, or this device; never a name the app chose freely."""
        parts = urlsplit(redirect_uri)
        if parts.scheme in ("http", "https") and parts.hostname not in _LOOPBACK:
            return parts.hostname or ""
        return f"this device ({parts.hostname or parts.scheme})"


_clients = Register("client", Client)


async def find(store: Store, client_id: str) -> Client | None:
    return await _clients.find(store, client_id)


async def list_all(store: Store) -> tuple[Client, ...]:
    return await _clients.all(store)


async def save(store: Store, client: Client) -> None:
    """Register or change.  Raises ValueError, worded for the operator, for a registration that could not be safe."""
    _check(client)
    await _clients.save(store, client.client_id, client)


async def change(store: Store, client: Client, now: int) -> bool:
    """As :func:`save`, of a registration that is there; False if it was taken away, be it just now: then it stays so."""
    await save(store, client)
    if await store.key_values.get(_REMOVED, client.client_id, now) is None:
        return True
    await _clients.remove(store, client.client_id)
    return False


async def remove(store: Store, client_id: str, now: int) -> bool:
    """Take a registration away with every token it holds; False if there was none."""
    await store.key_values.put(_REMOVED, client_id, b"", now + HOUR)  # longer than any change of it can be under way
    gone = await _clients.remove(store, client_id)
    await revoke_where(store, lambda grant: grant.client_id == client_id, now)
    return gone


def with_new_secret(client: Client) -> tuple[Client, str]:
    """The client with a secret made for it, and that secret, which is never shown again."""
    secret = new_secret()
    return msgspec.structs.replace(client, secret_hash=digest(secret)), secret


def with_jwks(client: Client, jwks: dict[str, Any]) -> Client:
    """The client with these public keys."""
    return msgspec.structs.replace(client, jwks=jwks)


def _check(client: Client) -> None:
    if not _ID.fullmatch(client.client_id):
        raise ValueError("A client id is 1 to 100 letters, digits and . _ ~ -")
    for uri in client.redirect_uris:
        if not _URI.fullmatch(uri) or "#" in uri or urlsplit(uri).scheme in ("javascript", "data", "vbscript", "file"):
            raise ValueError(f"{uri!r} cannot be a redirect URI.")
    if client.kind != "backend" and not client.redirect_uris:
        raise ValueError("A client that acts for persons needs a redirect URI.")
    if client.kind == "backend" and client.method != "private_key_jwt":
        raise ValueError("A backend client proves itself with private_key_jwt.")
    if (client.method == "private_key_jwt") != bool(client.jwks or client.jwks_uri) or (client.jwks and client.jwks_uri):
        raise ValueError("private_key_jwt, and only that, needs the client's public keys, or the address where they are.")
    if client.jwks_uri and not is_allowed(client.jwks_uri, Hosts.PUBLIC_OR_LOCAL):
        raise ValueError("The address of the public keys must be https (or http on this machine, in a demo).")
    if client.launch_uri and (client.kind == "backend" or not is_allowed(client.launch_uri, Hosts.PUBLIC_OR_LOCAL)):
        raise ValueError("The launch URI of an app must be https (or http on this machine, in a demo).")
    if (client.method == "client_secret") != bool(client.secret_hash):
        raise ValueError("client_secret, and only that, needs a secret.")
