"""Page links: a position, encrypted and authenticated, and valid only for the search it belongs to.

The encryption is deterministic (AES-SIV, RFC 5297), so that equal answers have equal links.
"""

from __future__ import annotations

import base64

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fhir_server.errors import Problem
from fhir_server.search.rows import STALE_LINK, Position

_positions = msgspec.json.Decoder(Position)


class Cursors:
    """Encrypts and decrypts positions with ``key``.  Raises ValueError unless it has 32, 48 or 64 bytes.

    ``bound`` identifies what a link belongs to (query, caller, permissions): with another value it cannot be decrypted.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def encrypt(self, position: Position, bound: bytes) -> str:
        """The position as URL-safe text."""
        encrypted = self._cipher.encrypt(msgspec.json.encode(position), [bound])
        return base64.urlsafe_b64encode(encrypted).rstrip(b"=").decode()

    def decrypt(self, text: str, bound: bytes) -> Position:
        """The position.  Raises Problem ``invalid``, always with the same text, for any text that is not encrypted for ``bound``."""
        try:
            encrypted = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(encrypted).rstrip(b"=").decode() != text:
                raise ValueError("not in canonical base64url")
            return _positions.decode(self._cipher.decrypt(encrypted, [bound]))
        except (ValueError, InvalidTag):
            raise Problem("invalid", STALE_LINK) from None
