"""Checks of the names that apps register: readable, and not confusable with another app's or the organization's name.

A person decides by the name on the consent page, so two names that look alike count as the same name.  What looks alike is
Unicode's list of confusable characters (UTS 39), and some signs that are read as letters in a word.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

# Latin letter -> letters, digits and signs that are read as it in a word, and are not in Unicode's list
_LOOKALIKES: Final = {
    "b": "вβ", "e": "ε3", "h": "нη", "i": "1|", "k": "кκ", "m": "м", "o": "0", "s": "5$", "t": "тτ", "u": "μ", "w": "ω", "x": "χ",
}  # fmt: skip
_TO_LATIN: Final = str.maketrans({sign: letter for letter, signs in _LOOKALIKES.items() for sign in signs})
# Words around a name that do not tell one app from another
_ARTICLES: Final = frozenset({"the", "a", "an", "offlclal"})  # as skeletons
_THE: Final = "the"
_APP: Final = "app"
_KINDS: Final = frozenset({"app", "apps", "appllcatlon", "onllne", "moblle", "offlclal"})  # as skeletons


@functools.cache
def _unicode_table() -> dict[int, str]:
    """Character -> the Latin letters or digits that Unicode lists as looking like it.  Loaded when it is first needed."""
    from confusable_homoglyphs import confusables  # imported here: it loads a megabyte of tables, and apps register rarely

    table: dict[int, str] = {}
    for character, alike in confusables.confusables_data.items():
        plain = next((other["c"] for other in alike if other["c"].isascii() and other["c"].isalnum()), None)
        if len(character) == 1 and not character.isascii() and plain:
            table[ord(character)] = plain
    return table


def skeleton(name: str) -> str:
    """A form that is equal for names that look alike, without accents, case, spaces and punctuation."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", _to_latin(name)).casefold())
    letters = _to_latin("".join(letter for letter in plain if not unicodedata.combining(letter))).casefold()
    return "".join(letter for letter in letters if letter.isalnum()).replace("rn", "m").replace("vv", "w").replace("i", "l")


def core(name: str) -> str:
    """The skeleton of a name without a leading article and words such as "App" at its end."""
    words = [part for word in re.split(r"[\W_]+", name) if (part := skeleton(word))]
    while len(words) > 1 and words[0] in _ARTICLES:
        del words[0]
    while len(words) > 1 and words[-1] in _KINDS:
        del words[-1]
    return "".join(words)


def is_readable(name: str) -> bool:
    """Whether every character is visible or a single space between words."""
    return (
        name.isprintable()
        and name == " ".join(name.split())
        and not any(unicodedata.category(character).startswith("C") for character in name)
    )


def is_lookalike(name: str, taken: str) -> bool:
    """Whether people could confuse ``name`` with ``taken``."""
    if not skeleton(taken):
        return False
    return skeleton(name) == skeleton(taken) or core(name) == core(taken) or _is_run_together(name, taken) or _is_run_together(taken, name)


def keys(name: str) -> frozenset[str]:
    """By what an index finds a name: its skeleton, and that of its core.  Empty for a name that looks like none."""
    whole = skeleton(name)
    return frozenset({f"whole {whole}", f"core {core(name)}"}) if whole else frozenset()


def similar_keys(name: str) -> frozenset[str]:
    """The keys of which every name that looks like this one has at least one (:func:`is_lookalike`, :func:`keys`)."""
    whole, plain = skeleton(name), core(name)
    cores = {plain, whole.removeprefix(_THE), whole.removesuffix(_APP), whole.removeprefix(_THE).removesuffix(_APP)}
    wholes = {whole, *_run_together(plain)}
    return frozenset({f"whole {each}" for each in wholes} | {f"core {each}" for each in cores})


def bare(name: str) -> str:
    """What names that look alike have in common: the core, also without an article or "App" that is written without a space."""
    return core(name).removeprefix(_THE).removesuffix(_APP)


def claims_organization(name: str, organization: str) -> bool:
    """Whether a name contains the organization's name."""
    return bool(skeleton(organization)) and skeleton(organization) in skeleton(name)


def _is_run_together(name: str, other: str) -> bool:
    """Whether ``name`` is the other one with an article or "App" written without a space: "GrowthChartApp"."""
    return skeleton(name) in _run_together(core(other))


def _run_together(plain: str) -> set[str]:
    return {f"{_THE}{plain}", f"{plain}{_APP}", f"{_THE}{plain}{_APP}"}


def _to_latin(text: str) -> str:
    return text.translate(_TO_LATIN).translate(_unicode_table())
