"""Parts of content by ``Range`` (RFC 9110 14), of which viewers of large documents fetch the pages that they show.

One range of bytes is served.  A request for several, for another unit or one that is malformed gets the whole content, as RFC 9110
allows.  So does one with ``If-Range``, which compares strongly: the ETags of this server are weak, and its times are of whole seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from fhir_server.errors import Problem

_RANGE: Final = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)


class ByteRange(NamedTuple):
    """The bytes from ``start`` on and before ``end``."""

    start: int
    end: int

    def content_range(self, size: int) -> bytes:
        """The header ``Content-Range`` of these bytes of ``size``."""
        return b"bytes %d-%d/%d" % (self.start, self.end - 1, size)


def wanted(method: str, headers: Mapping[str, str], size: int) -> ByteRange | None:
    """The range of content of ``size`` bytes that a request wants; None: all of it.

    Raises Problem ``range`` if the content has no byte of the range.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    if found is None or method != "GET" or not size or "if-range" in headers:
        return None
    first, last = found.groups()
    if not first:
        return _within(size - int(last), size, size) if last else None
    if last and int(last) < int(first):
        return None
    return _within(int(first), int(last) + 1 if last else size, size)


def _within(start: int, end: int, size: int) -> ByteRange:
    """These bytes as far as the content has them.  Raises Problem ``range``."""
    if start >= size:
        text = f"The content has {size} bytes, and none of the range."
        raise Problem("range", text, headers=((b"content-range", b"bytes */%d" % size),))
    return ByteRange(max(start, 0), min(end, size))
