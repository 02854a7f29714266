"""Formats dates and times for pages, in the institution's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def format_day(value: date) -> str:
    """Return a date such as ``21 November 2026``."""
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"


def format_instant_date(micros: int, zone: ZoneInfo) -> str:
    """Return the date of an instant (microseconds since 1970 UTC) in the time zone, as :func:`format_day` does."""
    return format_day(_local(micros, zone).date())


def format_instant(micros: int, zone: ZoneInfo) -> str:
    """Return the date and time of an instant in the time zone, such as ``21 November 2026, 09:05 CST``."""
    local = _local(micros, zone)
    return f"{format_day(local.date())}, {local:%H:%M %Z}"


def format_date(text: str) -> str:
    """Format a FHIR ``date`` or the date of a ``dateTime``; a partial date as ``May 2025`` or ``2025``.

    Returns "" for any other text.
    """
    parts = text[:10].split("-")
    try:
        whole = date.fromisoformat("-".join((*parts, "01", "01")[:3]))
    except ValueError:
        return ""
    return format_day(whole).split(" ", 3 - len(parts))[-1]


def _local(micros: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).astimezone(zone)
