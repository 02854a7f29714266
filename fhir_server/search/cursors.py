"""Page links: a position, encrypted and authenticated, and valid only for the search it belongs to.

The encryption is deterministic (AES-SIV, RFC 5297), so that equal answers have equal links.
"""

from __future__ import annotations

import base64
from typing import Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fhir_server.errors import Problem
from fhir_server.search.rows import STALE_LINK, Position

T = TypeVar("T")
_positions = msgspec.json.Decoder(Position)
_MAX_EARLIER: Final = 30
_MAX_EARLIER_BYTES: Final = 1500


class PageLink(Position, frozen=True, omit_defaults=True):
    """The position at which a page begins, and what leads back from it.

    ``number``   the number of the page, from 1 on; 0: it is not known
    ``earlier``  the positions at which the pages before it began, the nearest last, without the first page, as far as they are kept
    ``total``    the total that the answer with this link states, so that the caller knows it already; None: it states none
    """

    number: int = 0
    earlier: tuple[Position, ...] = ()
    total: int | None = None

    @staticmethod
    def second(end: Position, total: int | None = None) -> PageLink:
        """The second page, after the first one, which ends at ``end`` and states this total."""
        return PageLink(end.keys, end.id, 2, (), total)

    @property
    def is_second(self) -> bool:
        """Whether it is the second page."""
        return self.number == 2

    def next(self, end: Position, total: int | None = None) -> PageLink:
        """The page after this one, which ends at ``end`` and states this total."""
        earlier = (*self.earlier, Position(self.keys, self.id))[-_MAX_EARLIER:]
        while earlier and len(msgspec.json.encode(earlier)) > _MAX_EARLIER_BYTES:
            earlier = earlier[1:]
        return PageLink(end.keys, end.id, self.number + 1 if self.number else 0, earlier, total)

    def previous(self, total: int | None = None) -> PageLink | None:
        """The page before this one, which states this total; None if it is the first one or its position was not kept."""
        if not self.earlier:
            return None
        *before, at = self.earlier
        return PageLink(at.keys, at.id, max(self.number - 1, 0), tuple(before), total)


_links = msgspec.json.Decoder(PageLink)


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
        """The position.  Raises Problem as :meth:`link` does."""
        return self._decrypted(text, bound, _positions)

    def link(self, text: str, bound: bytes) -> PageLink:
        """The position, and what leads back from it.

        Raises Problem ``invalid``, always with the same text, for any text that is not encrypted for ``bound``.
        """
        return self._decrypted(text, bound, _links)

    def _decrypted(self, text: str, bound: bytes, decoder: msgspec.json.Decoder[T]) -> T:
        try:
            encrypted = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(encrypted).rstrip(b"=").decode() != text:
                raise ValueError("not in canonical base64url")
            return decoder.decode(self._cipher.decrypt(encrypted, [bound]))
        except (ValueError, InvalidTag):
            raise Problem("invalid", STALE_LINK) from None
