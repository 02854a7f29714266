"""Keys derived from the operator's key, and encryption of stored secrets that the server needs in plain text (Fernet)."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive_key(key: bytes, purpose: str) -> bytes:
    """32 bytes derived (HKDF) from the operator's key for one purpose."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key)


def derive_fernet(key: bytes, purpose: str) -> Fernet:
    """A Fernet whose key is derived from the operator's key for one purpose."""
    return Fernet(base64.urlsafe_b64encode(derive_key(key, purpose)))
