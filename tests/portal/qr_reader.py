"""Reads undamaged QR codes (ISO/IEC 18004), up to version 22, from inline SVG: bytes and digits, without the correction of errors."""

from __future__ import annotations

import re
from collections.abc import Callable

Modules = list[list[bool]]

# Codewords of error correction for each block, and the number of blocks, by level and version.
_CORRECTION = {
    "L": (7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28),
    "M": (10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26, 26, 28),
    "Q": (13, 22, 18, 26, 18, 24, 18, 22, 20, 24, 28, 26, 24, 20, 30, 24, 28, 28, 26, 30, 28, 30),
    "H": (17, 28, 22, 16, 22, 28, 26, 26, 24, 28, 24, 28, 22, 24, 24, 30, 28, 28, 26, 28, 30, 24),
}
_BLOCKS = {
    "L": (1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9),
    "M": (1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16, 17, 17),
    "Q": (1, 1, 2, 2, 4, 4, 6, 6, 8, 8, 8, 10, 12, 16, 12, 17, 16, 18, 21, 20, 23, 23),
    "H": (1, 1, 2, 4, 4, 4, 5, 6, 8, 8, 11, 11, 16, 16, 18, 16, 19, 21, 25, 25, 25, 34),
}
_LEVELS = ("M", "L", "H", "Q")
_MASKS: tuple[Callable[[int, int], int], ...] = (
    lambda row, column: (row + column) % 2, lambda row, column: row % 2, lambda row, column: column % 3,
    lambda row, column: (row + column) % 3, lambda row, column: (row // 2 + column // 3) % 2,
    lambda row, column: row * column % 2 + row * column % 3, lambda row, column: (row * column % 2 + row * column % 3) % 2,
    lambda row, column: ((row + column) % 2 + row * column % 3) % 2,
)  # fmt: skip


def text_in(svg: str) -> str:
    """The text of the QR code that a picture draws."""
    modules = _modules(svg)
    size = len(modules)
    version = (size - 17) // 4
    form = sum(modules[8][column] << 14 - index for index, column in enumerate((0, 1, 2, 3, 4, 5, 7, 8))) >> 10 ^ 0b10101
    level, mask = _LEVELS[form >> 3], _MASKS[form & 7]
    reserved = _reserved(version, size)
    bits = [
        modules[row][column] ^ (mask(row, column) == 0) for row, column in _path(size) if not reserved[row][column]
    ]  # fmt: skip
    words = [sum(bit << 7 - index for index, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits) // 8 * 8, 8)]
    return _text(_data(words, _BLOCKS[level][version - 1], _CORRECTION[level][version - 1]), version)


def _modules(svg: str) -> Modules:
    """The dark modules, without the quiet zone around them."""
    found = re.search(r'viewBox="0 0 (\d+) \1"', svg)
    assert found, svg[:200]
    whole = int(found[1])
    dark = [[False] * whole for _ in range(whole)]
    [path] = re.findall(r' d="([^"]+)"', svg)
    x = y = 0.0
    for command, numbers in re.findall(r"([Mmh])([^Mmh]*)", path):
        given = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if command == "h":
            for column in range(int(x), int(x + given[0])):
                dark[int(y)][column] = True
            x += given[0]
        else:
            x, y = (given[0], given[1]) if command == "M" else (x + given[0], y + given[1])
    border = next(index for index, row in enumerate(dark) if any(row))
    return [row[border : whole - border] for row in dark[border : whole - border]]


def _reserved(version: int, size: int) -> Modules:
    """Where no data are."""
    taken = [[row == 6 or column == 6 for column in range(size)] for row in range(size)]

    def take(top: int, left: int, height: int, width: int) -> None:
        for row in range(top, top + height):
            taken[row][left : left + width] = [True] * width

    for top, left, height, width in ((0, 0, 9, 9), (0, size - 8, 9, 8), (size - 8, 0, 8, 9)):
        take(top, left, height, width)
    if version >= 7:
        take(0, size - 11, 6, 3)
        take(size - 11, 0, 3, 6)
    if version > 1:
        count = version // 7 + 2
        step = (version * 8 + count * 3 + 5) // (count * 4 - 4) * 2
        centres = [6, *sorted(size - 7 - step * index for index in range(count - 1))]
        corners = {(6, 6), (6, centres[-1]), (centres[-1], 6)}
        for row, column in ((row, column) for row in centres for column in centres if (row, column) not in corners):
            take(row - 2, column - 2, 5, 5)
    return taken


def _path(size: int) -> list[tuple[int, int]]:
    """The modules in the order of the bits: pairs of columns from the right, up and down in turn."""
    found = []
    pairs = [right if right > 6 else right - 1 for right in range(size - 1, 0, -2) if right != 0]
    for number, right in enumerate(pairs):
        rows = range(size - 1, -1, -1) if number % 2 == 0 else range(size)
        found += [(row, column) for row in rows for column in (right, right - 1)]
    return found


def _data(words: list[int], blocks: int, correction: int) -> list[int]:
    """The data codewords in order: blocks are interleaved, the longer ones last."""
    short, long = len(words) // blocks - correction, len(words) % blocks
    lengths = [short + (index >= blocks - long) for index in range(blocks)]
    parts: list[list[int]] = [[] for _ in lengths]
    given = iter(words)
    for at in range(max(lengths)):
        for part, length in zip(parts, lengths, strict=True):
            if at < length:
                part.append(next(given))
    return [word for part in parts for word in part]


def _text(words: list[int], version: int) -> str:
    bits = "".join(f"{word:08b}" for word in words)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    text = ""
    while len(bits) - at >= 4 and (mode := take(4)):
        assert mode in (1, 4), f"mode {mode}"
        if mode == 4:
            text += bytes(take(8) for _ in range(take(8 if version < 10 else 16))).decode("latin-1")
            continue
        left = take(10 if version < 10 else 12)
        while left:
            count = min(left, 3)
            text += f"{take((0, 4, 7, 10)[count]):0{count}}"
            left -= count
    return text
