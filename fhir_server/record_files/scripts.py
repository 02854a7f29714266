"""Which font a PDF uses for which characters, and what it shows of those that it cannot print.

Latin, Greek, Cyrillic, Armenian, Georgian and symbols are in DejaVu Sans; Chinese and Japanese in Droid Sans Fallback.  Both become parts
of the file.  Korean uses the font that PDF readers have for Adobe's character collection (PDF 32000-1, 9.7.5.2).  Scripts whose letters
must be joined or reordered cannot be set without an engine for that: their characters become :data:`BOX`, and the file says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

BASE: Final = "DejaVuSans"
ASIAN: Final = "DroidSansFallbackFull"
KOREAN: Final = "HYSMyeongJo-Medium"
BOX: Final = "\N{WHITE SQUARE}"
Covers = Callable[[str, int], bool]
"""Whether a font has a glyph for a code point."""

_SPACES: Final = dict.fromkeys(map(ord, "\t\r\n\f\v"), " ")
# (first, last) code point, font
_RANGES: Final = (
    (0x1100, 0x11FF, KOREAN), (0x3000, 0x30FF, ASIAN), (0x3130, 0x318F, KOREAN), (0x3400, 0x9FFF, ASIAN), (0xAC00, 0xD7A3, KOREAN),
    (0xF900, 0xFAFF, ASIAN), (0xFF01, 0xFFEF, ASIAN),
)  # fmt: skip
# Hebrew to the end of the scripts of India and South-East Asia; Khmer and Mongolian; presentation forms of Hebrew and Arabic
_REORDERED: Final = ((0x0590, 0x109F), (0x1780, 0x18AF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFC))
_INVISIBLE: Final = frozenset({"Cf", "Cc"})


def runs(text: str, covers: Covers) -> Iterator[tuple[str, str]]:
    """A text as (font, characters), in order: composed, without invisible characters, with a box for each that cannot be printed."""
    fonts = [(_font_of(character, covers), character) for character in _seen(text)]
    printed = [(font or BASE, character if font else BOX) for font, character in fonts]
    for font, group in groupby(printed, key=lambda pair: pair[0]):
        yield font, "".join(character for _, character in group)


def is_printed(text: str, covers: Covers) -> bool:
    """Whether a PDF shows each character of a text."""
    return text.isascii() or all(_font_of(character, covers) for character in _seen(text))


def _seen(text: str) -> Iterator[str]:
    composed = unicodedata.normalize("NFC", text).translate(_SPACES)
    return (character for character in composed if unicodedata.category(character) not in _INVISIBLE)


def _font_of(character: str, covers: Covers) -> str:
    """The font that prints a character; "" if none does."""
    code = ord(character)
    if any(first <= code <= last for first, last in _REORDERED):
        return ""
    font = next((font for first, last, font in _RANGES if first <= code <= last), BASE)
    return font if covers(font, code) else ""
