"""Secrets that must be had back in plain: Fernet boxes, each purpose with a key of its own."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive_fernet(key: bytes, purpose: str) -> Fernet:
    """What seals and opens under the operator's key."""
    derived = HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key)
    return Fernet(base64.urlsafe_b64encode(derived))
