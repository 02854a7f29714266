"""Outside OpenID providers at which people may sign in, and whose accounts here their subjects are.

The operator registers both.  A subject that nobody has mapped is nobody here: no account is opened for it, and none is
found by name or e-mail address, which another provider's users may choose as they please.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from cryptography.fernet import InvalidToken

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext, digest
from fhir_server.smart.core.encryption import derive_fernet
from fhir_server.smart.core.registry import Register
from fhir_server.smart.outbound.json_client import is_callable_url
from fhir_server.store import Store

_PURPOSE: Final = "fhir-server identity providers"
_LONGEST: Final = 255  # characters of a subject (OpenID Connect Core 2)


class Provider(msgspec.Struct, frozen=True):
    """An OpenID provider, and who we are there.

    ``issuer``     exactly as it states it, in its discovery document and its id_tokens
    ``label``      what people are offered: "Sign in with ..."
    ``method``     how we prove who we are: client_secret, or private_key_jwt with a key of our own JWK Set
    ``secret``     the client secret, sealed where the settings hold a key
    """

    issuer: str
    label: str
    client_id: str
    method: Literal["client_secret", "private_key_jwt"]
    secret: bytes = b""

    @property
    def id(self) -> str:
        """Names the provider in addresses."""
        return digest(self.issuer)[:16]


class LinkedIdentity(msgspec.Struct, frozen=True):
    """Whose account the subject ``sub`` of this issuer is; by the account's own subject too, which no later account shares."""

    issuer: str
    sub: str
    username: str
    subject: str


_providers = Register("identity-provider", Provider)
_mapped = Register("federated-subject", LinkedIdentity)


def redirect_uri(smart: SmartContext, provider: Provider) -> str:
    """Where this provider, and no other, sends people back: what it must have registered for us."""
    return f"{smart.origin}/sign-in/from/{provider.id}"


async def find(store: Store, id: str) -> Provider | None:
    return await _providers.find(store, id)


async def list_all(store: Store) -> tuple[Provider, ...]:
    """By what people call them."""
    return tuple(sorted(await _providers.list_all(store), key=lambda one: one.label.casefold()))


async def add(smart: SmartContext, provider: Provider, secret: str = "") -> None:
    """Register or change.  Raises ValueError, worded for the operator, for what cannot be used safely."""
    _check(smart, provider, secret)
    sealed = msgspec.structs.replace(provider, secret=_encrypt(smart, secret))
    await _providers.save(smart.store, provider.id, sealed)


async def remove(store: Store, issuer: str) -> bool:
    """Take a provider away with its subjects, whose accounts are signed out; False if there was none."""
    for one in await subjects(store):
        if one.issuer == issuer:
            await unlink(store, issuer, one.sub)
    return await _providers.remove(store, digest(issuer)[:16])


def secret_of(smart: SmartContext, provider: Provider) -> str:
    """The client secret.  Raises LookupError if it was sealed under another key."""
    if not smart.key:
        return provider.secret.decode()
    try:
        return derive_fernet(smart.key.encode(), _PURPOSE).decrypt(provider.secret).decode()
    except InvalidToken:
        raise LookupError(f"The secret for {provider.issuer} was sealed under another key; register the provider again.") from None


async def link(store: Store, issuer: str, sub: str, username: str) -> None:
    """From now on this subject is this account.  Raises ValueError, worded for the operator."""
    if await _providers.find(store, digest(issuer)[:16]) is None:
        raise ValueError(f"There is no provider {issuer!r}.")
    if not sub.isascii() or not sub.isprintable() or not 0 < len(sub) <= _LONGEST:
        raise ValueError("A subject is 1 to 255 printable ASCII characters, exactly as the provider states it.")
    user = await users.find(store, username)
    if user is None:
        raise ValueError(f"There is no user {username!r}.")
    known = await _mapped.find(store, _name(issuer, sub))
    if known is not None and (known.username, known.subject) != (user.username, user.subject):
        raise ValueError(f"This subject is linked to {known.username!r}; unlink it first.")
    await _mapped.save(store, _name(issuer, sub), LinkedIdentity(issuer, sub, user.username, user.subject))


async def unlink(store: Store, issuer: str, sub: str) -> bool:
    """This subject is nobody again, and the account it was is signed out; False if it was nobody."""
    known = await _mapped.find(store, _name(issuer, sub))
    if known is None:
        return False
    await _mapped.remove(store, _name(issuer, sub))
    await store.key_values.delete_family(users.session_family(known.username))
    return True


async def subjects(store: Store) -> tuple[LinkedIdentity, ...]:
    return await _mapped.list_all(store)


async def account(store: Store, issuer: str, sub: str) -> User | None:
    """The open account that this subject is."""
    known = await _mapped.find(store, _name(issuer, sub))
    user = await users.find(store, known.username) if known else None
    if known is None or user is None or user.disabled or user.subject != known.subject:
        return None
    return user


def _name(issuer: str, sub: str) -> str:
    return digest(f"{issuer} {sub}")  # an issuer is a URL and has no space


def _encrypt(smart: SmartContext, secret: str) -> bytes:
    plain = secret.encode()
    return derive_fernet(smart.key.encode(), _PURPOSE).encrypt(plain) if smart.key and secret else plain


def _check(smart: SmartContext, provider: Provider, secret: str) -> None:
    if not is_callable_url(smart, provider.issuer) or "?" in provider.issuer:
        raise ValueError("An issuer is an https URL without a query.")
    if provider.issuer.rstrip("/") == smart.origin:
        raise ValueError("This server cannot be its own identity provider.")
    if not provider.label.strip() or not provider.label.isprintable():
        raise ValueError("A provider needs a label that people will recognise.")
    if not provider.client_id.isprintable() or not provider.client_id:
        raise ValueError("The client id is what the provider calls this server; it cannot be empty.")
    if (provider.method == "client_secret") != bool(secret):
        raise ValueError("client_secret, and only that, needs a secret.")
    if secret and not smart.key and smart.mode == "production":
        raise ValueError("FHIR_SERVER_SECRET_KEY must be set: it seals the client secret.")
