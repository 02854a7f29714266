"""The instants at which a patient's age changes who may see what (the rules A1 to A6 and A13 of ``docs/policy.md``).

Age is counted in civil dates of the policy's time zone.  Of an imprecise birth date each rule takes the end that
discloses less: what ends for proxies ends early, what opens for the person opens late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server.consent import intervals
from fhir_server.consent.policy import Feb29

TEEN: Final = 12
ADULT: Final = 18
OLDEST: Final = 130
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """``t12`` narrows child proxies, ``t18_off`` ends them, ``t18_on`` opens the person's own account (microseconds since 1970).

    Not ``known``: the birth date is missing or cannot be; then nobody on the patient side has access.
    """

    turns_12: int
    proxy_access_ends: int
    own_access_begins: int
    known: bool


UNKNOWN: Final = AgeLimits(0, 0, 0, False)


def age_limits(patients: Sequence[Json], zone: ZoneInfo, feb29: Feb29, now: int) -> AgeLimits:
    """The instants for a person recorded as these Patient resources (several where records were linked): the strictest of all."""
    each = [_ages(patient, zone, feb29, now) for patient in patients]
    if not each or not all(one.known for one in each):
        return UNKNOWN
    return AgeLimits(
        min(one.turns_12 for one in each), min(one.proxy_access_ends for one in each), max(one.own_access_begins for one in each), True
    )


def birthday_instant(patient: Json, years: int, zone: ZoneInfo, feb29: Feb29) -> tuple[int, int] | None:
    """The earliest and the latest instant at which the patient can reach this age; None without a usable birth date."""
    days = _born(patient)
    if days is None:
        return None
    first, last = (intervals.midnight(anniversary(day, years, feb29), zone) for day in days)
    return first, last


def anniversary(born: date, years: int, feb29: Feb29) -> date:
    """The civil date on which somebody born that day reaches ``years``.

    For 29 February in a common year: 1 March, or 28 February.  ``day_before`` is the common law's rule, for every birthday.
    """
    try:
        day = born.replace(year=born.year + years)
    except ValueError:
        day = date(born.year + years, 2, 28) if feb29 == "feb28" else date(born.year + years, 3, 1)
    return day - timedelta(days=1) if feb29 == "day_before" else day


def _born(patient: Json) -> tuple[date, date] | None:
    text = patient.get("birthDate")
    days = intervals.civil(text) if isinstance(text, str) else None
    # Dates near the calendar's ends have no anniversaries to compute with.
    return days if days is not None and 2 < days[0].year < 9800 else None


def _ages(patient: Json, zone: ZoneInfo, feb29: Feb29, now: int) -> AgeLimits:
    days = _born(patient)
    if days is None or not _plausible(patient, days, zone, now):
        return UNKNOWN
    twelve, eighteen = birthday_instant(patient, TEEN, zone, feb29), birthday_instant(patient, ADULT, zone, feb29)
    assert twelve is not None and eighteen is not None
    return AgeLimits(twelve[0], *eighteen, known=True)


def _plausible(patient: Json, days: tuple[date, date], zone: ZoneInfo, now: int) -> bool:
    if intervals.midnight(days[0], zone) > now or intervals.midnight(anniversary(days[1], OLDEST, "mar1"), zone) <= now:
        return False
    died = patient.get("deceasedDateTime")
    until = intervals.span(died, zone) if isinstance(died, str) else None
    return until is None or intervals.midnight(days[0], zone) < until[1]
