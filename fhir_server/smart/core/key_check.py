"""Whether the secret key of the settings is the one that the secrets in the store are encrypted with.

The store keeps a known text, encrypted with the key.  A store from before this check has none; there, the signing keys tell.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import SIGNING_KEYS, InvalidToken, derive_fernet, seal
from fhir_server.smart.core.signing_keys import SIGNING_KEY, SigningKey
from fhir_server.store import Store

KeyState = Literal["right", "former", "wrong", "unknown"]

_KIND: Final = "store-fact"
_NAME: Final = "secret-key-check"
_PURPOSE: Final = "fhir-server key check"
_TEXT: Final = b"the secret key of this store"


async def check_key(store: Store, now: int, key: str, former_key: str = "") -> KeyState:
    """Return whether the secrets in the store are encrypted with ``key``: ``right`` or ``wrong``.

    ``former``: they are encrypted with ``former_key``.  ``unknown``: nothing is encrypted yet.
    """
    stored = await store.key_values.get(_KIND, _NAME, 0)
    if stored is not None:
        return _opened(key, former_key, _PURPOSE, (stored,))
    keys = await store.key_values.list_all(SIGNING_KEY, now)
    return _opened(key, former_key, SIGNING_KEYS, tuple(msgspec.json.decode(text, type=SigningKey).pem for _, text in keys))


def _opened(key: str, former_key: str, purpose: str, sealed: tuple[bytes, ...]) -> KeyState:
    """Whether one of these values is encrypted with the key, or with the former one."""
    if not sealed:
        return "unknown"
    if not key:
        return "right" if any(value == _TEXT or value.startswith(b"-----BEGIN") for value in sealed) else "wrong"
    states: tuple[tuple[str, KeyState], ...] = ((key, "right"), (former_key, "former"))
    for candidate, state in states:
        if candidate and any(_opens(candidate, purpose, value) for value in sealed):
            return state
    return "wrong"


def _opens(key: str, purpose: str, sealed: bytes) -> bool:
    try:
        derive_fernet(key.encode(), purpose).decrypt(sealed)
    except InvalidToken:
        return False
    return True


async def require_key(smart: SmartContext) -> None:
    """Raises ValueError, with a message for the operator, if the secrets in the store are encrypted with another key."""
    if await check_key(smart.store, smart.now(), smart.key, smart.former_key) == "wrong":
        raise ValueError(
            "FHIR_SERVER_SECRET_KEY is not the key that the secrets in this store are encrypted with. Set the right key, or set"
            " FHIR_SERVER_FORMER_SECRET_KEY to it and run `fhir-server keys reseal`."
        )


async def record_key(smart: SmartContext) -> None:
    """Record in the store that its secrets are encrypted with this key, unless it has such a record."""
    await smart.store.key_values.put_if_absent(_KIND, _NAME, seal(smart, _PURPOSE, _TEXT), MAX_INSTANT)


async def replace_record(smart: SmartContext) -> None:
    """Record in the store that its secrets are now encrypted with this key."""
    await smart.store.key_values.put(_KIND, _NAME, seal(smart, _PURPOSE, _TEXT), MAX_INSTANT)
