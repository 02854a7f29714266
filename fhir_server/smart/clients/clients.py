"""Registered clients: how each authenticates, and the most it may be granted."""

from __future__ import annotations

import hmac
import re
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from fhir_server.smart.clients import name_index, names, options
from fhir_server.smart.clients.options import ClientOptions
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.context import HOUR, digest, new_secret
from fhir_server.smart.core.registry import Register
from fhir_server.smart.core.scopes import ADMINISTRATION
from fhir_server.store import Store
from fhir_server.web.public_fetch import Hosts, is_allowed

ClientKind = Literal["app", "backend", "partner"]
Method = Literal["none", "client_secret", "private_key_jwt"]
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#-\[\]-~]*", re.ASCII)
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_REMOVED: Final = "removed-client"
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}", re.ASCII)


class Client(msgspec.Struct, frozen=True):
    """One registration.

    ``kind``        app: acts for a person; backend: acts for itself with system/ scopes; partner: another health system's app
    ``method``      none (public), client_secret (in the Basic header or the body), private_key_jwt
    ``scopes``      the most it may be granted, space-separated
    ``secret_hash`` SHA-256 of the secret, for client_secret
    ``jwks``        public keys as a JWK Set, for private_key_jwt
    ``jwks_uri``    or the URL where the client publishes them
    ``clearance``   sensitive categories that a backend may receive, "*" for all; unused for other kinds
    ``trusted``     may write security labels (a data feed of the institution)
    ``launch_uri``  the URL that an EHR launch opens; "" if the portal does not launch the app
    ``metadata``    further metadata of a client that registered itself (RFC 7591), as sent
    ``registration_token_hash``  SHA-256 of its registration access token (RFC 7592); "" if an operator registered it
    ``publisher``   issuer of its software statement; "" if it has none
    ``registered_at``  when it registered itself, in microseconds
    ``renamed_at``     when it last changed its own :attr:`identity`, in microseconds; 0 if it never did
    ``options``     logout, pairwise identifiers and others (:class:`~fhir_server.smart.clients.options.ClientOptions`)
    """

    client_id: str
    name: str
    kind: ClientKind
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
    renamed_at: int = 0
    options: ClientOptions = ClientOptions()

    @property
    def levels(self) -> frozenset[str]:
        """The scope levels it can have: ``system`` for a backend, ``patient`` and ``user`` for the other kinds."""
        return frozenset({"system"}) if self.kind == "backend" else frozenset({"patient", "user"})

    @property
    def identity(self) -> tuple[str, ...]:
        """By what people know the app: its name, website and logo, and the hosts to which answers go."""
        logo = str(self.metadata.get("logo_uri", ""))
        return (self.name, self.homepage, logo, *sorted({self.redirect_host(uri) for uri in self.redirect_uris}))

    @property
    def sector(self) -> str:
        """The sector of its pairwise identifiers."""
        return options.sector(self.options, self.redirect_uris)

    def is_as_allowed(self, identity: tuple[str, ...], since: int) -> bool:
        """Whether the app still is what a person allowed, with this identity and at this time (microseconds).

        Only apps that manage their registration themselves can change without the institution.  A grant of an earlier version has
        no identity: it counts if the app has not changed since.
        """
        if not self.registration_token_hash:
            return True
        return identity == self.identity if identity else since >= self.renamed_at

    def matches_secret(self, secret: str) -> bool:
        """Whether this is the client's secret, compared in constant time."""
        return self.method == "client_secret" and hmac.compare_digest(self.secret_hash, digest(secret))

    def redirect_host(self, redirect_uri: str) -> str:
        """The recipient of the response, for the consent page: a host, or this device, but no text that the app chooses freely."""
        parts = urlsplit(redirect_uri)
        if parts.scheme in ("http", "https") and parts.hostname not in _LOOPBACK:
            return parts.hostname or ""
        return f"this device ({parts.hostname or parts.scheme})"


def shown_hosts(identity: tuple[str, ...]) -> str:
    """The hosts of an :attr:`Client.identity`, as text."""
    return " and ".join(identity[3:])


_clients = Register("client", Client)


async def find(store: Store, client_id: str) -> Client | None:
    """The registration, or None."""
    return await _clients.find(store, client_id)


async def list_all(store: Store) -> tuple[Client, ...]:
    """All registrations, ordered by client id."""
    return await _clients.list_all(store)


async def save(store: Store, client: Client) -> None:
    """Add or replace a registration.  Raises ValueError, with a message for the operator, for an invalid or unsafe one."""
    _check(client)
    before = await find(store, client.client_id)
    await name_index.add(store, client.client_id, client.name)
    await _clients.save(store, client.client_id, client)
    if before is not None:
        await name_index.remove(store, client.client_id, before.name, but=client.name)


async def change(store: Store, client: Client, now: int) -> bool:
    """Replace an existing registration, as :func:`save` does.  False if it was removed, even in parallel: it stays removed."""
    await save(store, client)
    if await store.key_values.get(_REMOVED, client.client_id, now) is None:
        return True
    await _remove(store, client.client_id)
    return False


async def remove(store: Store, client_id: str, now: int) -> bool:
    """Remove a registration and revoke all its tokens.  False if there was none."""
    await store.key_values.put(_REMOVED, client_id, b"", now + HOUR)  # longer than any change in progress takes
    existed = await _remove(store, client_id)
    await grant_index.revoke(store, await grant_index.of_client(store, client_id, now))
    return existed


async def find_similar(store: Store, name: str) -> tuple[Client, ...]:
    """The clients whose names people could confuse with this one."""
    found = [await find(store, client_id) for client_id in sorted(await name_index.similar(store, name, _names))]
    return tuple([client for client in found if client is not None and names.is_lookalike(name, client.name)])


async def _names(store: Store) -> list[tuple[str, str]]:
    return [(client.client_id, client.name) for client in await list_all(store)]


async def _remove(store: Store, client_id: str) -> bool:
    client = await find(store, client_id)
    existed = await _clients.remove(store, client_id)
    if client is not None:
        await name_index.remove(store, client_id, client.name)
    return existed


def with_new_secret(client: Client) -> tuple[Client, str]:
    """The client with the hash of a new secret, and the secret, which cannot be displayed again."""
    secret = new_secret()
    return msgspec.structs.replace(client, secret_hash=digest(secret)), secret


def with_jwks(client: Client, jwks: dict[str, Any]) -> Client:
    """The client with these public keys."""
    return msgspec.structs.replace(client, jwks=jwks)


def _check(client: Client) -> None:
    if not _ID.fullmatch(client.client_id):
        raise ValueError("A client id must be 1 to 100 characters: letters, digits and . _ ~ -")
    for uri in (*client.redirect_uris, *client.options.post_logout_redirect_uris):
        if not _URI.fullmatch(uri) or "#" in uri or urlsplit(uri).scheme in ("javascript", "data", "vbscript", "file"):
            raise ValueError(f"{uri!r} is not an allowed redirect URI.")
    if client.kind != "backend" and not client.redirect_uris:
        raise ValueError("An app or partner client needs a redirect URI.")
    if client.kind == "backend" and client.method != "private_key_jwt":
        raise ValueError("A backend client must authenticate with private_key_jwt.")
    if (client.method == "private_key_jwt") != bool(client.jwks or client.jwks_uri) or (client.jwks and client.jwks_uri):
        raise ValueError("A client needs public keys or their URL, not both, if it authenticates with private_key_jwt, and only then.")
    if client.jwks_uri and not is_allowed(client.jwks_uri, Hosts.PUBLIC_OR_LOCAL):
        raise ValueError("The URL of the public keys must be https (or http on this machine, in demo mode).")
    if client.launch_uri and (client.kind == "backend" or not is_allowed(client.launch_uri, Hosts.PUBLIC_OR_LOCAL)):
        raise ValueError("A launch URI must be https (or http on this machine, in demo mode), and a backend client has none.")
    if ADMINISTRATION in client.scopes.split() and (client.kind != "backend" or client.scopes.split() != [ADMINISTRATION]):
        raise ValueError(f"A client with the scope {ADMINISTRATION} must be a backend, and may have no other scope.")
    if (client.method == "client_secret") != bool(client.secret_hash):
        raise ValueError("A client needs a secret if it authenticates with client_secret, and only then.")
    options.check(client.options, client.redirect_uris)
    if client.options.without_pkce and (client.method == "none" or not client.launch_uri):
        raise ValueError("Only a confidential app with a launch URI may be without PKCE.")
