"""The sensitive kinds of information that a person may keep from an app, in her words.

The codes are those of the labels on rows; which rows carry them is not this room's to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CATEGORY_NAMES: Final = {
    "HIV": "HIV tests and care",
    "STD": "Sexually transmitted infections",
    "REPRO": "Birth control, abortion and other reproductive care",
    "PREG": "Pregnancy",
    "PAP": "Pap tests",
    "MH": "Mental health",
    "SUD": "Alcohol and drug treatment",
    "DRUGTEST": "Drug tests",
    "SEXAB": "Sexual abuse and violence",
    "GENETIC": "Genetic tests",
}
UNCLASSIFIED: Final = "UNCLASSIFIED"


def withheld_labels(chosen: Iterable[str]) -> tuple[str, ...]:
    """The labels that these choices keep from an app.

    Whoever keeps any kind away keeps away too what nobody has sorted yet: it could be of that kind.
    """
    known = sorted(set(chosen) & CATEGORY_NAMES.keys())
    return (*known, UNCLASSIFIED) if known else ()


def describe(labels: Iterable[str]) -> tuple[str, ...]:
    """The kinds among these labels, for people."""
    kept = set(labels)
    return tuple(words for code, words in CATEGORY_NAMES.items() if code in kept)
