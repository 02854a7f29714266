"""Keys derived from the operator's key, and encryption of stored secrets that the server needs in plain text.

Secrets are encrypted with Fernet, with one derived key for each purpose.  The operator's key is ``SmartContext.key``.  While it
is being replaced, ``SmartContext.former_key`` opens what is sealed with the other one; nothing is sealed with it.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fhir_server.smart.core.context import SmartContext

__all__ = ["SIGNING_KEYS", "InvalidToken", "SealedRecords", "derive_fernet", "derive_key", "seal", "unseal"]
SIGNING_KEYS: Final = "fhir-server signing keys"


class SealedRecords(NamedTuple):
    """The key-value records of one ``kind`` that hold something encrypted for ``purpose``.

    It is the ``member`` of a record of this type, or, if ``record`` is None, the whole value.
    """

    kind: str
    purpose: str
    record: type[msgspec.Struct] | None = None
    member: str = ""


def derive_key(key: bytes, purpose: str) -> bytes:
    """32 bytes derived (HKDF) from the operator's key for one purpose."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key)


@lru_cache(maxsize=32)
def derive_fernet(key: bytes, purpose: str) -> Fernet:
    """A Fernet whose key is derived from the operator's key for one purpose."""
    return Fernet(base64.urlsafe_b64encode(derive_key(key, purpose)))


def seal(smart: SmartContext, purpose: str, plain: bytes) -> bytes:
    """Encrypt what is to be stored; without a key in the settings (demo, test) it stays as it is."""
    return derive_fernet(smart.key.encode(), purpose).encrypt(plain) if smart.key else plain


def unseal(smart: SmartContext, purpose: str, sealed: bytes) -> bytes:
    """Decrypt what :func:`seal` returned.  Raises InvalidToken if it was encrypted with a key that the settings do not have."""
    if not smart.key:
        return sealed
    keys = [key.encode() for key in (smart.key, smart.former_key) if key]
    return MultiFernet([derive_fernet(key, purpose) for key in keys]).decrypt(sealed)
