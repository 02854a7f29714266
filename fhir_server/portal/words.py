"""Levels, relationships and dates in the words of the pages."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

# CodeSystem proxy-level: code -> (name, what it opens)
LEVELS: Final[dict[str, tuple[str, str]]] = {
    "standard": (
        "Standard",
        "Most of your record: visits, test results, medicines, vaccinations. Not sensitive results, visits and medicines, "
        "not doctors' notes, not bills.",
    ),
    "full": ("Full", "Everything you can see yourself, also what is sensitive, doctors' notes and bills."),
    "scheduling": ("Appointments only", "Your ordinary visits, and booking them. No test results, no medicines, no bills."),
    "billing": ("Bills only", "Your bills, payments and insurance. No visits, no test results, no medicines."),
}

# v3-RoleCode: code -> (word on the page, the code system's display)
RELATIONSHIPS: Final[dict[str, tuple[str, str]]] = {
    "SPS": ("Husband, wife or partner", "spouse"),
    "PRN": ("Parent", "parent"),
    "CHILD": ("Son or daughter", "child"),
    "SIB": ("Brother or sister", "sibling"),
    "FAMMEMB": ("Other relative", "family member"),
    "FRND": ("Friend", "unrelated friend"),
}

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def day(value: date) -> str:
    """E.g. ``21 November 2026``."""
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"


def day_of(micros: int, zone: ZoneInfo) -> str:
    """The civil date of an instant (microseconds since 1970 UTC) there, as :func:`day`."""
    return day(datetime.fromtimestamp(micros / 1_000_000, UTC).astimezone(zone).date())
