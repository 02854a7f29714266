"""Checks of the names that apps register: readable, and not confusable with another app's or the organization's name.

A person decides by the name on the consent page, so two names that look alike count as the same name.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# Latin letter -> letters of other scripts, digits and signs that look like it.
_LOOKALIKES: Final = {
    "a": "аα", "b": "вβ", "c": "с", "d": "ԁ", "e": "еε3", "h": "һнη", "i": "іιı1|", "j": "ј", "k": "кκ", "m": "м", "n": "ν", "o": "оο0",
    "p": "рρ", "q": "ԛ", "s": "ѕ5$", "t": "тτ", "u": "υμ", "w": "ԝω", "x": "хχ", "y": "уγ",
}  # fmt: skip
_TO_LATIN: Final = str.maketrans({sign: letter for letter, signs in _LOOKALIKES.items() for sign in signs})


def skeleton(name: str) -> str:
    """A form that is equal for names that look alike, without accents, case, spaces and punctuation."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter)).translate(_TO_LATIN)
    return "".join(letter for letter in letters if letter.isalnum()).replace("rn", "m").replace("vv", "w").replace("i", "l")


def is_readable(name: str) -> bool:
    """Whether every character is visible or a single space between words."""
    return (
        name.isprintable()
        and name == " ".join(name.split())
        and not any(unicodedata.category(character).startswith("C") for character in name)
    )


def is_lookalike(name: str, taken: str) -> bool:
    """Whether people could confuse ``name`` with ``taken``."""
    return bool(skeleton(taken)) and skeleton(name) == skeleton(taken)


def claims_organization(name: str, organization: str) -> bool:
    """Whether a name contains the organization's name."""
    return bool(skeleton(organization)) and skeleton(organization) in skeleton(name)
