"""What is kept of another system's tokens: Fernet ciphertext, in every mode.

The key comes from the settings.  Where they hold none (demo, test) it is made once and kept in the store, which
protects a copied table but not a copied store.
"""

from __future__ import annotations

from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from fhir_server.clock import MAX_INSTANT
from fhir_server.linking.context import LinkEndedError
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import box

_KIND: Final = "linking-key"
_LOST: Final = "This link can no longer be opened here. Link the account again."


async def encrypt(smart: SmartContext, plain: bytes) -> bytes:
    return (await _box(smart)).encrypt(plain)


async def decrypt(smart: SmartContext, sealed: bytes) -> bytes:
    """Raises Ended if it was sealed under another key."""
    try:
        return (await _box(smart)).decrypt(sealed)
    except InvalidToken:
        raise LinkEndedError(_LOST) from None


async def _box(smart: SmartContext) -> Fernet:
    seed = smart.key.encode() if smart.key else await _make_key(smart)
    return box(seed, "fhir-server linked accounts")


async def _make_key(smart: SmartContext) -> bytes:
    secrets = smart.store.key_values
    seed = await secrets.get(_KIND, "", 0)
    if seed is None:
        await secrets.put_if_absent(_KIND, "", Fernet.generate_key(), MAX_INSTANT)  # of several processes, one succeeds
        seed = await secrets.get(_KIND, "", 0)
    if seed is None:
        raise LookupError("The store did not keep the key of the linked accounts.")
    return seed
