"""Names that apps give themselves: readable, and not taken for anybody else's.

A person decides by the name on the consent page, so two names that look alike are one name.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# Letters of other scripts, digits and signs, by the Latin letter that they read like.
_READ_AS: Final = {
    "a": "аα", "b": "вβ", "c": "с", "d": "ԁ", "e": "еε3", "h": "һнη", "i": "іιı1|", "j": "ј", "k": "кκ", "m": "м", "n": "ν", "o": "оο0",
    "p": "рρ", "q": "ԛ", "s": "ѕ5$", "t": "тτ", "u": "υμ", "w": "ԝω", "x": "хχ", "y": "уγ",
}  # fmt: skip
_ALIKE: Final = str.maketrans({sign: letter for letter, signs in _READ_AS.items() for sign in signs})


def skeleton(name: str) -> str:
    """What is left of a name to the eye: accents, case, spaces and punctuation make no difference."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter)).translate(_ALIKE)
    return "".join(letter for letter in letters if letter.isalnum()).replace("rn", "m").replace("vv", "w").replace("i", "l")


def is_readable(name: str) -> bool:
    """Whether every character is one that can be seen, or a single space between words."""
    return name.isprintable() and name == " ".join(name.split()) and not any(unicodedata.category(one).startswith("C") for one in name)


def is_lookalike(name: str, taken: str) -> bool:
    """Whether people could take ``name`` for ``taken``."""
    return bool(skeleton(taken)) and skeleton(name) == skeleton(taken)


def claims_organization(name: str, organization: str) -> bool:
    """Whether a name speaks in the name of the organisation."""
    return bool(skeleton(organization)) and skeleton(organization) in skeleton(name)
