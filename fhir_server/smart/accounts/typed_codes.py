"""Random codes that people type: recovery codes, password codes and activation codes.

The alphabet is Crockford's base32, which has no I, L, O and U. Each character carries five random bits.
"""

from __future__ import annotations

import secrets
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOK_ALIKES: Final = str.maketrans("OIL", "011", " -–\t")
_MAX_TYPED: Final = 100  # characters
_GROUP: Final = 4


def generate(length: int) -> str:
    """Return a random code of ``length`` characters, without dashes."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def format_groups(code: str) -> str:
    """Return the code as it is displayed: in groups of four characters, separated by dashes."""
    return "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))


def normalize(typed: str) -> str:
    """Return typed text as :func:`generate` writes codes: capitals, no spaces or dashes, O as 0, I and L as 1."""
    return typed[:_MAX_TYPED].upper().translate(_LOOK_ALIKES)
