"""Encrypts the tokens of other systems before they are stored (Fernet), in every mode.

The key comes from the settings. If they have none (demo, test), a key is generated once and stored in the store. That
protects a copied table, but not a copied store.
"""

from __future__ import annotations

from typing import Final

from cryptography.fernet import Fernet, MultiFernet

from fhir_server.clock import MAX_INSTANT
from fhir_server.linking.context import LinkEndedError
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import InvalidToken, derive_fernet

PURPOSE: Final = "fhir-server linked accounts"
KEY_KIND: Final = "linking-key"
_KEY_CHANGED: Final = "This link can no longer be used. Link the account again."


async def encrypt(smart: SmartContext, plaintext: bytes) -> bytes:
    return (await _cipher(smart)).encrypt(plaintext)


async def decrypt(smart: SmartContext, ciphertext: bytes) -> bytes:
    """Decrypt what :func:`encrypt` returned. Raises LinkEndedError if it was encrypted with another key."""
    try:
        return (await _cipher(smart)).decrypt(ciphertext)
    except InvalidToken:
        raise LinkEndedError(_KEY_CHANGED) from None


async def _cipher(smart: SmartContext) -> MultiFernet:
    seeds = [key.encode() for key in (smart.key, smart.former_key) if key] if smart.key else [await _stored_key(smart)]
    return MultiFernet([derive_fernet(seed, PURPOSE) for seed in seeds])


async def _stored_key(smart: SmartContext) -> bytes:
    values = smart.store.key_values
    seed = await values.get(KEY_KIND, "", 0)
    if seed is None:
        await values.put_if_absent(KEY_KIND, "", Fernet.generate_key(), MAX_INSTANT)  # if several processes try, one succeeds
        seed = await values.get(KEY_KIND, "", 0)
    if seed is None:
        raise LookupError("The key for linked accounts could not be stored.")
    return seed
