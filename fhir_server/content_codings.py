"""The content coding gzip (RFC 9110, section 8.4): answers that are sent in it, and bodies that come in it.

The length of a compressed text says more about the text than its own length does: how much of it repeats.  So the head of each
compressed answer has a file name of 0 to 127 letters, which decoders skip.  How many follows from a secret key and the text: a
repeated answer has the same length, and nobody without the key can subtract it.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Final

from fhir_server.errors import Problem

COMPRESSED: Final = (b"application/fhir+", b"application/json")
"""How the media types begin of which answers are compressed for clients that take that."""
SMALLEST: Final = 1400  # bytes: what fits into one packet gains nothing
_IN_LOOP: Final = 100_000  # bytes that are compressed or checked at once in the event loop
_LEVEL: Final = 4
_RAW_DEFLATE: Final = -15  # zlib's number for a stream without head and trailer
_GZIP: Final = 31
_HEAD: Final = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff"  # deflate, with a file name, without a time (RFC 1952 2.3)
_SLICE: Final = 64 * 1024
_THREADS: Final = 2
_KEPT: Final = 8  # documents that are kept compressed


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header admits gzip (RFC 9110 12.5.3)."""
    weights: dict[str, float] = {}
    for item in header.lower().split(","):
        name, _, parameter = item.partition(";")
        name_of_weight, _, weight = parameter.partition("=")
        try:
            weights[name.strip()] = float(weight) if name_of_weight.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    return next((weights[name] > 0 for name in ("gzip", "x-gzip", "*") if name in weights), False)


class Gzip:
    """Compresses answers.  ``key``: the secret that decides how much each is lengthened; the same in all processes of a server."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._threads = ThreadPoolExecutor(_THREADS, "gzip")
        self._documents: dict[bytes, bytes] = {}

    async def whole(self, text: bytes, *, keep: bool = False) -> bytes:
        """A text, compressed; a large one in another thread.  ``keep``: it is a public document, which is compressed once."""
        if keep and (known := self._documents.get(text)):
            return known
        stream = self._stream(text)
        coded = await self._run(stream, text) + stream.end()
        if keep:
            if len(self._documents) >= _KEPT:
                del self._documents[next(iter(self._documents))]
            self._documents[text] = coded
        return coded

    async def pieces(self, texts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A text that comes in pieces, compressed piece by piece, large ones in another thread."""
        stream: _Stream | None = None
        async for text in texts:
            stream = stream or self._stream(text)
            if coded := await self._run(stream, text):
                yield coded
        yield (stream or self._stream(b"")).end()

    def _stream(self, first: bytes) -> _Stream:
        return _Stream(blake2b(first, key=self._key[:64], digest_size=1).digest()[0] & 127)

    async def _run(self, stream: _Stream, text: bytes) -> bytes:
        if len(text) <= _IN_LOOP:
            return stream.add(text)
        return await asyncio.get_running_loop().run_in_executor(self._threads, stream.add, text)


class _Stream:
    """A gzip member that is being written."""

    def __init__(self, padding: int) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        self._begin = _HEAD + b"x" * padding + b"\0"
        self._checksum = self._size = 0

    def add(self, text: bytes) -> bytes:
        """Compress some more; returns what is ready to be sent."""
        self._checksum, self._size = zlib.crc32(text, self._checksum), self._size + len(text)
        begin, self._begin = self._begin, b""
        return begin + self._deflate.compress(text)

    def end(self) -> bytes:
        """The rest of the member."""
        return self._begin + self._deflate.flush() + struct.pack("<LL", self._checksum, self._size & 0xFFFFFFFF)


class Inflater:
    """Decompresses a body that comes in parts, in slices of a fixed size: however much a part stands for, little of it is in memory."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP)

    def slices(self, part: bytes) -> Iterable[bytes]:
        """The text of one more part.  Raises Problem ``invalid`` for what is not gzip, or follows its end."""
        for start in range(0, len(part), _SLICE):
            yield from self._slices(part[start : start + _SLICE])

    def _slices(self, part: bytes) -> Iterable[bytes]:
        while True:
            if self._inflate.eof:
                raise Problem("invalid", "The body goes on after the end of its gzip data.")
            try:
                text = self._inflate.decompress(part, _SLICE)
            except zlib.error:
                raise Problem("invalid", "The body is not gzip data, as its Content-Encoding says.") from None
            part = self._inflate.unconsumed_tail or self._inflate.unused_data
            yield text
            if not part and (self._inflate.eof or len(text) < _SLICE):
                return

    def end(self) -> None:
        """Require that the text is complete.  Raises Problem ``invalid``."""
        if not self._inflate.eof:
            raise Problem("invalid", "The gzip data of the body ends early.")


def inflater_for(header: str) -> Inflater | None:
    """What decodes a body with this Content-Encoding header; None for a body that is as it is.

    Raises Problem ``media_type``, with the codings that are taken, for any other coding and for several.
    """
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in ("gzip", "x-gzip"):
        text = "The server takes bodies with Content-Encoding gzip, or without a content coding."
        raise Problem("media_type", text, headers=((b"accept-encoding", b"gzip"),))
    return Inflater()
