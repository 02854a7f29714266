"""The age rules of docs/policy.md, and implausible birth dates."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fhir_server.consent import intervals
from fhir_server.consent.age_limits import age_limits, birthday_instant

NEW_YORK = ZoneInfo("America/New_York")


def instant(text: str) -> int:
    return intervals.micros(datetime.fromisoformat(text))


NOW = instant("2026-11-21T12:00:00Z")


@pytest.mark.parametrize(
    ("born", "zone", "years", "feb29", "expected"),
    [
        ("2008-02-29", "America/Chicago", 18, "mar1", "2026-03-01T06:00Z"),
        ("2008-02-29", "America/Chicago", 18, "feb28", "2026-02-28T06:00Z"),
        ("2008-02-29", "America/Chicago", 18, "day_before", "2026-02-28T06:00Z"),
        ("2008-06-15", "America/Chicago", 18, "day_before", "2026-06-14T05:00Z"),
        ("2012-02-29", "America/Chicago", 12, "mar1", "2024-02-29T06:00Z"),
        ("2012-03-10", "America/Havana", 12, "mar1", "2024-03-10T05:00Z"),
        ("2012-11-03", "America/Havana", 12, "mar1", "2024-11-03T04:00Z"),
        ("2006-09-08", "America/Santiago", 18, "mar1", "2024-09-08T04:00Z"),
        ("2012-04-26", "Africa/Cairo", 12, "mar1", "2024-04-25T22:00Z"),
        ("1999-12-30", "Pacific/Apia", 12, "mar1", "2011-12-30T10:00Z"),
        ("2008-06-15", "Pacific/Kiritimati", 18, "mar1", "2026-06-14T10:00Z"),
        ("2008-06-15", "Pacific/Honolulu", 18, "mar1", "2026-06-15T10:00Z"),
    ],
)
def test_age_begins_at_the_first_instant_of_the_local_birthday(born: str, zone: str, years: int, feb29, expected: str) -> None:
    assert birthday_instant({"birthDate": born}, years, ZoneInfo(zone), feb29) == (instant(expected),) * 2


@pytest.mark.parametrize(
    ("born", "off", "on"),
    [("2008-06", "2026-06-01T04:00Z", "2026-06-30T04:00Z"), ("2008", "2026-01-01T05:00Z", "2026-12-31T05:00Z")],
)
def test_imprecise_birth_date_ends_proxy_early_and_starts_own_late(born: str, off: str, on: str) -> None:
    facts = age_limits([{"birthDate": born}], NEW_YORK, "mar1", NOW)
    assert (facts.proxy_access_ends, facts.own_access_begins, facts.known) == (instant(off), instant(on), True)


def test_imprecise_birth_date_uses_earliest_twelfth_birthday() -> None:
    assert age_limits([{"birthDate": "2014-06"}], NEW_YORK, "mar1", NOW).turns_12 == instant("2026-06-01T04:00Z")


@pytest.mark.parametrize(
    "patient",
    [
        {}, {"birthDate": ""}, {"birthDate": "2008-13"}, {"birthDate": "2008-02-30"}, {"_birthDate": {"extension": []}},
        {"birthDate": 2008},
        {"birthDate": "2026-11-22"}, {"birthDate": "1896-11-20"}, {"birthDate": "0001"}, {"birthDate": "9999-12-31"},
        {"birthDate": "2010-05-05", "deceasedDateTime": "2009"},
    ],
)  # fmt: skip
def test_missing_or_impossible_birth_date_is_unknown(patient: dict[str, object]) -> None:
    assert not age_limits([patient], NEW_YORK, "mar1", NOW).known


@pytest.mark.parametrize("born", ["2026-11-21", "1897", "2010-05-05"])
def test_a_possible_birth_date_is_known(born: str) -> None:
    assert age_limits([{"birthDate": born}], NEW_YORK, "mar1", NOW).known


def test_linked_records_use_the_strictest_age_limits() -> None:
    older, younger = {"birthDate": "2008-01-01"}, {"birthDate": "2010-01-01"}
    both = age_limits([older, younger], NEW_YORK, "mar1", NOW)
    alone = [age_limits([one], NEW_YORK, "mar1", NOW) for one in (older, younger)]
    assert (both.turns_12, both.proxy_access_ends, both.own_access_begins) == (
        alone[0].turns_12,
        alone[0].proxy_access_ends,
        alone[1].own_access_begins,
    )
    assert not age_limits([older, {}], NEW_YORK, "mar1", NOW).known


@pytest.mark.parametrize(
    ("text", "start", "length"),
    [
        ("2026-11-21", "2026-11-21T05:00Z", 86_400_000_000),
        ("2026-11", "2026-11-01T04:00Z", 30 * 86_400_000_000 + 3_600_000_000),
        ("2026-11-21T12:00:00Z", "2026-11-21T12:00Z", 1_000_000),
        ("2026-11-21T07:00:00.250-05:00", "2026-11-21T12:00:00.250Z", 1_000),
        ("2026-11-21T12:00:00.1234567Z", "2026-11-21T12:00:00.123456Z", 1),
    ],
)
def test_date_covers_the_interval_of_its_precision(text: str, start: str, length: int) -> None:
    assert intervals.interval(text, NEW_YORK) == (instant(start), instant(start) + length)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-21T12:00", "2026-11-21T12:00:00", "2026-11-21T25:00:00Z", "9999-12-31"])
def test_invalid_date_has_no_interval(text: str) -> None:
    assert intervals.interval(text, NEW_YORK) is None
