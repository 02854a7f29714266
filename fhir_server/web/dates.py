"""Days and times in the words of the pages, in the institution's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def format_day(value: date) -> str:
    """E.g. ``21 November 2026``."""
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"


def format_instant_date(micros: int, zone: ZoneInfo) -> str:
    """The civil date of an instant (microseconds since 1970 UTC) there, as :func:`day`."""
    return format_day(_there(micros, zone).date())


def format_instant(micros: int, zone: ZoneInfo) -> str:
    """The civil date and time of an instant there, and which time that is: ``21 November 2026, 09:05 CST``."""
    there = _there(micros, zone)
    return f"{format_day(there.date())}, {there:%H:%M %Z}"


def format_date(text: str) -> str:
    """A FHIR ``date`` or the date of a ``dateTime`` as :func:`day`, however partial (``May 2025``, ``2025``); "" for anything else."""
    parts = text[:10].split("-")
    try:
        whole = date.fromisoformat("-".join((*parts, "01", "01")[:3]))
    except ValueError:
        return ""
    return format_day(whole).split(" ", 3 - len(parts))[-1]


def _there(micros: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).astimezone(zone)
