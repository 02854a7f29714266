"""Makes a PNG of true colour one with a palette of 256 colours, which is a third as large (https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import struct
import zlib
from collections import Counter

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STEP = 8  # colours that differ by less are one
_MOST = 256


def with_palette(png: bytes) -> bytes:
    """The picture with a palette.  ``png``: 8 bits a channel, without interlace, as Chromium makes them."""
    width, height, channels, lines = _decoded(png)
    rows = [[_rounded(line[at : at + 3]) for at in range(0, width * channels, channels)] for line in lines]
    counted = Counter(colour for row in rows for colour in row)
    palette = [colour for colour, _ in counted.most_common(_MOST)]
    number = {colour: index for index, colour in enumerate(palette)}
    for colour in counted.keys() - number.keys():
        number[colour] = min(range(len(palette)), key=lambda index: sum((a - b) ** 2 for a, b in zip(palette[index], colour, strict=True)))
    data = b"".join(b"\0" + bytes(number[colour] for colour in row) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def _rounded(colour: bytes) -> bytes:
    return bytes(min(255, (value + _STEP // 2) // _STEP * _STEP) for value in colour)


def _decoded(png: bytes) -> tuple[int, int, int, list[bytearray]]:
    """Width, height, channels and the lines without filters."""
    assert png.startswith(_SIGNATURE)
    at, data, head = len(_SIGNATURE), b"", b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        head, data, at = (body if kind == b"IHDR" else head), data + (body if kind == b"IDAT" else b""), at + length + 12
    width, height, depth, colours, _, _, interlace = struct.unpack(">IIBBBBB", head)
    assert depth == 8 and colours in (2, 6) and interlace == 0
    channels, raw = (3 if colours == 2 else 4), zlib.decompress(data)
    lines = [bytearray(width * channels)]
    for start in range(0, len(raw), width * channels + 1):
        lines.append(_unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + width * channels]), lines[-1], channels))
    return width, height, channels, lines[1:]


def _unfiltered(filter: int, line: bytearray, above: bytearray, size: int) -> bytearray:
    for at in range(len(line)) if filter else ():
        left, up, corner = (line[at - size], above[at], above[at - size]) if at >= size else (0, above[at], 0)
        line[at] = (line[at] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[filter]) & 255
    return line


def _paeth(left: int, up: int, corner: int) -> int:
    distances = [(abs(up - corner), left), (abs(left - corner), up), (abs(left + up - 2 * corner), corner)]
    return min(distances, key=lambda one: one[0])[1]
