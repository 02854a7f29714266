"""External OpenID providers for sign-in, and the links from their subjects to accounts of this server.

The operator registers both.  An unlinked subject cannot sign in.  The server neither creates an account for it nor matches
it by name or e-mail address, which users of another provider may choose freely.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import session_ends
from fhir_server.smart.core.context import SmartContext, digest
from fhir_server.smart.core.encryption import InvalidToken, SealedRecords, seal, unseal
from fhir_server.smart.core.registry import Register
from fhir_server.smart.outbound.json_client import is_callable_url
from fhir_server.store import Store

_PURPOSE: Final = "fhir-server identity providers"
_MAX_SUBJECT: Final = 255  # characters of a subject (OpenID Connect Core 2)


class Provider(msgspec.Struct, frozen=True):
    """An OpenID provider and this server's client registration there.

    ``issuer``     exactly as in the provider's discovery document and ID tokens
    ``label``      the name on the sign-in page: "Sign in with ..."
    ``client_id``  this server's client id at the provider
    ``method``     client authentication: client_secret, or private_key_jwt with a key of this server's JWK Set
    ``secret``     the client secret, encrypted if the settings hold a key
    """

    issuer: str
    label: str
    client_id: str
    method: Literal["client_secret", "private_key_jwt"]
    secret: bytes = b""

    @property
    def id(self) -> str:
        """The provider's identifier in URLs of this server."""
        return digest(self.issuer)[:16]


class LinkedIdentity(msgspec.Struct, frozen=True):
    """A link from subject ``sub`` of an issuer to an account.  ``subject``, the account's own, excludes a later account of the name."""

    issuer: str
    sub: str
    username: str
    subject: str


_providers = Register("identity-provider", Provider)
SEALED: Final = SealedRecords("identity-provider", _PURPOSE, Provider, "secret")
_identities = Register("federated-subject", LinkedIdentity)


def redirect_uri(smart: SmartContext, provider: Provider) -> str:
    """Return the redirect URI of this provider alone, to be registered with it."""
    return f"{smart.origin}/sign-in/from/{provider.id}"


async def find(store: Store, id: str) -> Provider | None:
    """Return the provider with this :attr:`Provider.id`, or None."""
    return await _providers.find(store, id)


async def list_all(store: Store) -> tuple[Provider, ...]:
    """Return all providers, ordered by label."""
    return tuple(sorted(await _providers.list_all(store), key=lambda provider: provider.label.casefold()))


async def add(smart: SmartContext, provider: Provider, secret: str = "") -> None:
    """Register a provider or change it.  Raises ValueError, with a message for the operator, for an unsafe registration."""
    _check(smart, provider, secret)
    stored = msgspec.structs.replace(provider, secret=_encrypt(smart, secret))
    await _providers.save(smart.store, provider.id, stored)


async def remove(store: Store, issuer: str) -> bool:
    """Remove a provider and its links, and end the sessions of the linked accounts.  False if there was none."""
    for identity in await list_linked_identities(store):
        if identity.issuer == issuer:
            await unlink(store, issuer, identity.sub)
    return await _providers.remove(store, digest(issuer)[:16])


def client_secret(smart: SmartContext, provider: Provider) -> str:
    """Return the client secret, decrypted.  Raises LookupError if it was encrypted with another key."""
    try:
        return unseal(smart, _PURPOSE, provider.secret).decode()
    except InvalidToken:
        raise LookupError(f"The secret for {provider.issuer} was encrypted with another key; register the provider again.") from None


async def link(store: Store, issuer: str, sub: str, username: str) -> None:
    """Link this subject to the account of this user name.  Raises ValueError, with a message for the operator."""
    if await _providers.find(store, digest(issuer)[:16]) is None:
        raise ValueError(f"There is no provider {issuer!r}.")
    if not sub.isascii() or not sub.isprintable() or not 0 < len(sub) <= _MAX_SUBJECT:
        raise ValueError("A subject must have 1 to 255 printable ASCII characters, exactly as the provider sends it.")
    user = await users.find(store, username)
    if user is None:
        raise ValueError(f"There is no user {username!r}.")
    linked = await _identities.find(store, _name(issuer, sub))
    if linked is not None and (linked.username, linked.subject) != (user.username, user.subject):
        raise ValueError(f"This subject is linked to {linked.username!r}; unlink it first.")
    await _identities.save(store, _name(issuer, sub), LinkedIdentity(issuer, sub, user.username, user.subject))


async def unlink(store: Store, issuer: str, sub: str) -> bool:
    """Remove the link of this subject and end the account's sessions.  False if there was none."""
    linked = await _identities.find(store, _name(issuer, sub))
    if linked is None:
        return False
    await _identities.remove(store, _name(issuer, sub))
    await session_ends.end_all(store, linked.username)
    return True


async def rename(store: Store, identity: LinkedIdentity, username: str) -> None:
    """Let a linked subject sign in to its account under the account's new user name."""
    renamed = LinkedIdentity(identity.issuer, identity.sub, username, identity.subject)
    await _identities.save(store, _name(identity.issuer, identity.sub), renamed)


async def list_linked_identities(store: Store) -> tuple[LinkedIdentity, ...]:
    """Return the links of all providers."""
    return await _identities.list_all(store)


async def find_account(store: Store, issuer: str, sub: str) -> User | None:
    """Return the account that this subject is linked to; None without a link or if the account is disabled or was replaced."""
    linked = await _identities.find(store, _name(issuer, sub))
    user = await users.find(store, linked.username) if linked else None
    if linked is None or user is None or user.disabled or user.subject != linked.subject:
        return None
    return user


def _name(issuer: str, sub: str) -> str:
    return digest(f"{issuer} {sub}")  # an issuer is a URL and has no space


def _encrypt(smart: SmartContext, secret: str) -> bytes:
    plain = secret.encode()
    return seal(smart, _PURPOSE, plain) if secret else plain


def _check(smart: SmartContext, provider: Provider, secret: str) -> None:
    if not is_callable_url(smart, provider.issuer) or "?" in provider.issuer:
        raise ValueError("An issuer must be an https URL without a query.")
    if provider.issuer.rstrip("/") == smart.origin:
        raise ValueError("This server cannot be its own identity provider.")
    if not provider.label.strip() or not provider.label.isprintable():
        raise ValueError("A provider needs a label for the sign-in page.")
    if not provider.client_id.isprintable() or not provider.client_id:
        raise ValueError("The client id must be printable and not empty.")
    if (provider.method == "client_secret") != bool(secret):
        raise ValueError("The method client_secret requires a secret; private_key_jwt accepts none.")
    if secret and not smart.key and smart.mode == "production":
        raise ValueError("FHIR_SERVER_SECRET_KEY must be set: it encrypts the client secret.")
