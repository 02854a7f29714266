"""Reads the text of a PDF back, as a reader's search does: by the fonts' maps to Unicode (PDF 32000-1, 9.10)."""

from __future__ import annotations

import re
import zlib
from base64 import a85decode

_OBJECT = re.compile(rb"(?s)(\d+) 0 obj\s(.*?)endobj")
_SHOWN = re.compile(rb"(?s)/(F\d+(?:\+\d+)?) [\d.]+ Tf|\(((?:[^()\\]|\\.)*)\) Tj|(T\*|ET)")
_ESCAPE = re.compile(rb"(?s)\\([0-7]{3}|.)")
_PAIR = re.compile(rb"<([0-9A-Fa-f]+)> <([0-9A-Fa-f]+)>")
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}


def text_of(pdf: bytes) -> str:
    """The text of all pages, one line for each line."""
    objects = {int(number): body for number, body in _OBJECT.findall(pdf)}
    maps: dict[bytes, dict[int, str]] = {}
    for names in (body for body in objects.values() if re.match(rb"<<\s*/F1 ", body)):
        for name, number in re.findall(rb"/(F\d+(?:\+\d+)?) (\d+) 0 R", names):
            link = re.search(rb"/ToUnicode (\d+) 0 R", objects[int(number)])
            maps[name] = _characters(_stream(objects[int(link[1])])) if link else {}
    contents = [link[1] for body in objects.values() if (link := re.search(rb"/Contents (\d+) 0 R", body))]
    return "\n".join(_page(_stream(objects[int(number)]), maps) for number in contents)


def _stream(body: bytes) -> bytes:
    data = body[body.index(b"stream") + len(b"stream") : body.rindex(b"endstream")].strip(b"\r\n")
    return zlib.decompress(a85decode(b"<~" + data.strip(), adobe=True) if b"ASCII85" in body else data)


def _characters(cmap: bytes) -> dict[int, str]:
    found: dict[int, str] = {}
    for part in re.findall(rb"(?s)beginbfchar(.*?)endbfchar", cmap):
        found.update({int(code, 16): bytes.fromhex(target.decode()).decode("utf-16-be") for code, target in _PAIR.findall(part)})
    return found


def _page(content: bytes, maps: dict[bytes, dict[int, str]]) -> str:
    lines, font = [""], b""
    for name, shown, end in _SHOWN.findall(content):
        if name:
            font = name
        elif end:
            lines.append("")
        else:
            codes = _ESCAPE.sub(lambda found: _escaped(found[1]), shown)
            lines[-1] += "".join(maps[font].get(code, "\ufffd") for code in codes) if maps[font] else codes.decode("latin-1")
    return "\n".join(line for line in lines if line)


def _escaped(code: bytes) -> bytes:
    return bytes([int(code, 8)]) if len(code) == 3 else _NAMED.get(code, code)
