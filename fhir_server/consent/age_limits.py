"""Computes the instants at which a patient's age changes access (docs/policy.md, age rules).

Age is counted in civil dates of the policy's time zone. For a partial birth date each rule uses the date that discloses less: access
of proxies ends on the earliest possible birthday, access of the patient begins on the latest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from fhir_server.consent import intervals
from fhir_server.consent.policy import Feb29

TEEN: Final = 12
ADULT: Final = 18
MAX_AGE: Final = 130
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """The instants of a patient's age rules, in microseconds since 1970 UTC.

    ``turns_12``           a child grant becomes the grant of a teenager's proxy
    ``proxy_access_ends``  a child grant ends
    ``own_access_begins``  the patient's own access and adult grants begin
    ``known``              False if the birth date is missing or impossible: the patient side has no access
    """

    turns_12: int
    proxy_access_ends: int
    own_access_begins: int
    known: bool


UNKNOWN: Final = AgeLimits(0, 0, 0, False)


def age_limits(patients: Sequence[Json], zone: ZoneInfo, feb29: Feb29, now: int) -> AgeLimits:
    """The strictest age limits of a patient's Patient resources (several if records are linked)."""
    limits = [_limits_of(patient, zone, feb29, now) for patient in patients]
    if not limits or not all(limit.known for limit in limits):
        return UNKNOWN
    return AgeLimits(
        min(limit.turns_12 for limit in limits),
        min(limit.proxy_access_ends for limit in limits),
        max(limit.own_access_begins for limit in limits),
        known=True,
    )


class Birthday(NamedTuple):
    """The earliest and the latest instant at which a patient may reach an age, in microseconds since 1970 UTC."""

    earliest: int
    latest: int


def birthday_instant(patient: Json, years: int, zone: ZoneInfo, feb29: Feb29) -> Birthday | None:
    """When the patient reaches this age; None without a usable birth date."""
    days = _birth_days(patient)
    if days is None:
        return None
    return Birthday(*(intervals.midnight(anniversary(day, years, feb29), zone) for day in days))


def anniversary(born: date, years: int, feb29: Feb29) -> date:
    """The civil date on which a person who was born on that day reaches ``years``.

    In a common year, 29 February becomes 1 March or 28 February. With ``day_before`` every age begins one day early (common law).
    """
    try:
        day = born.replace(year=born.year + years)
    except ValueError:
        day = date(born.year + years, 2, 28) if feb29 == "feb28" else date(born.year + years, 3, 1)
    return day - timedelta(days=1) if feb29 == "day_before" else day


def _birth_days(patient: Json) -> tuple[date, date] | None:
    text = patient.get("birthDate")
    days = intervals.civil_days(text) if isinstance(text, str) else None
    # Years near the ends of the calendar have no anniversaries that Python can compute.
    return days if days is not None and 2 < days[0].year < 9800 else None


def _limits_of(patient: Json, zone: ZoneInfo, feb29: Feb29, now: int) -> AgeLimits:
    days = _birth_days(patient)
    if days is None or not _is_plausible(patient, days, zone, now):
        return UNKNOWN
    twelve, eighteen = birthday_instant(patient, TEEN, zone, feb29), birthday_instant(patient, ADULT, zone, feb29)
    assert twelve is not None and eighteen is not None
    return AgeLimits(twelve.earliest, eighteen.earliest, eighteen.latest, known=True)


def _is_plausible(patient: Json, days: tuple[date, date], zone: ZoneInfo, now: int) -> bool:
    if intervals.midnight(days[0], zone) > now or intervals.midnight(anniversary(days[1], MAX_AGE, "mar1"), zone) <= now:
        return False
    deceased = patient.get("deceasedDateTime")
    death = intervals.interval(deceased, zone) if isinstance(deceased, str) else None
    return death is None or intervals.midnight(days[0], zone) < death[1]
