"""Encryption of stored secrets that the server needs in plain text: Fernet, with one derived key for each purpose."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive_fernet(key: bytes, purpose: str) -> Fernet:
    """A Fernet whose key is derived (HKDF) from the operator's key for one purpose."""
    derived = HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key)
    return Fernet(base64.urlsafe_b64encode(derived))
