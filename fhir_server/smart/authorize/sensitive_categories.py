"""The sensitive categories that a user may withhold from an app, with their names on the consent page.

The codes are sensitivity labels.  This module does not know which resources carry them.
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
UNKNOWN: Final = ("UNCLASSIFIED", "UNREAD")
"""The labels of content that could belong to any category."""


def withheld_labels(chosen: Iterable[str]) -> tuple[str, ...]:
    """Return the labels that these choices withhold from an app.

    Any choice also withholds unclassified content and attachments that the server cannot read: they could belong to the category.
    """
    labels = sorted(set(chosen) & CATEGORY_NAMES.keys())
    return (*labels, *UNKNOWN) if labels else ()


def describe(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the categories among these labels."""
    codes = set(labels)
    return tuple(name for code, name in CATEGORY_NAMES.items() if code in codes)
