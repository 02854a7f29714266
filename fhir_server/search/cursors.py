"""Page links: a position, sealed so that it can be neither read nor made outside, and good only for its own search.

The sealing is deterministic (AES-SIV, RFC 5297), so that equal answers have equal links.
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
    """Seals and opens positions with ``key`` (32, 48 or 64 bytes; ValueError otherwise).

    ``bound`` says what a link is for (query, caller, epoch): opened with another, it is no link.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def encrypt(self, position: Position, bound: bytes) -> str:
        """The position as URL-safe text."""
        sealed = self._cipher.encrypt(msgspec.json.encode(position), [bound])
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def decrypt(self, text: str, bound: bytes) -> Position:
        """The position; Problem ``invalid``, always of one wording, for anything :meth:`seal` did not give for ``bound``."""
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() != text:
                raise ValueError("not the one way to write it")
            return _positions.decode(self._cipher.decrypt(sealed, [bound]))
        except (ValueError, InvalidTag):
            raise Problem("invalid", STALE_LINK) from None
