"""Dates without a zone are those of the institution's zone, in resources and in searches alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest

from fhir_server.consent import intervals
from fhir_server.consent.labeling_version import labeling_digest
from fhir_server.maintenance.relabel import relabel_store
from fhir_server.search import zones
from fhir_server.search.parameter_types.date import interval
from fhir_server.settings import Settings
from tests.served import Served, store_url

NEW_YORK = ZoneInfo("America/New_York")
BASE = "http://zone.example/fhir"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    known = dict(zones._ZONES)
    yield
    zones._ZONES.clear()
    zones._ZONES.update(known)


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * zones.SECOND


@pytest.mark.parametrize(
    ("text", "start", "end"),
    (
        ("2019-03-08", "2019-03-08T05:00:00+00:00", "2019-03-09T05:00:00+00:00"),
        ("2019-03-10", "2019-03-10T05:00:00+00:00", "2019-03-11T04:00:00+00:00"),  # 23 hours
        ("2019-11-03", "2019-11-03T04:00:00+00:00", "2019-11-04T05:00:00+00:00"),  # 25 hours
        ("2019-03", "2019-03-01T05:00:00+00:00", "2019-04-01T04:00:00+00:00"),
        ("2019", "2019-01-01T05:00:00+00:00", "2020-01-01T05:00:00+00:00"),
        ("2019-07-01T08:30", "2019-07-01T12:30:00+00:00", "2019-07-01T12:31:00+00:00"),
        ("2019-11-03T01:30", "2019-11-03T05:30:00+00:00", "2019-11-03T05:31:00+00:00"),  # the first of two
        ("2019-07-01T08:30:00Z", "2019-07-01T08:30:00+00:00", "2019-07-01T08:30:01+00:00"),
        ("2019-07-01T08:30:00+02:00", "2019-07-01T06:30:00+00:00", "2019-07-01T06:30:01+00:00"),
    ),
)
def test_the_zone_counts_where_the_text_has_none(text: str, start: str, end: str) -> None:
    assert interval(text, NEW_YORK) == (instant(start), instant(end))


def test_days_end_where_the_next_begins_in_every_zone() -> None:
    days = [datetime(year, month, day, tzinfo=UTC).date() for year in (1900, 2011, 2026) for month in range(1, 13) for day in (1, 15, 28)]
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for day in days:
            lo, hi = interval(day.isoformat(), zone)
            assert lo < hi
            assert (lo, hi) == intervals.interval(day.isoformat(), zone), (name, day)


@pytest.mark.parametrize("text", ("0001-01-01", "9999-12-31", "0001", "9999"))
@pytest.mark.parametrize("name", ("Pacific/Kiritimati", "America/Los_Angeles", "UTC"))
def test_the_first_and_the_last_day_have_an_interval(text: str, name: str) -> None:
    lo, hi = interval(text, ZoneInfo(name))
    assert lo < hi


def test_a_skipped_day_is_not_empty() -> None:
    lo, hi = interval("2011-12-30", ZoneInfo("Pacific/Apia"))
    assert lo < hi


@pytest.mark.parametrize("kind", ("memory", "sqlite", "mongodb"))
def test_searches_take_days_of_the_institution(kind: str, tmp_path: Path) -> None:
    served = Served(store_url(kind, tmp_path), seeds=False, search_timezone="America/New_York")
    feed = served.token()

    def put(id: str, effective: str) -> None:
        body = {"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "effectiveDateTime": effective}
        assert served.request(feed, "PUT", f"Observation/{id}", body=body).status == 201

    put("late", "2019-03-08T23:30:00-05:00")
    put("utc", "2019-03-09T04:00:00Z")
    put("day", "2019-03-08")
    put("next", "2019-03-09T05:00:00Z")
    for query, found in (
        ("date=2019-03-08", {"late", "utc", "day"}), ("date=2019-03-09", {"next"}), ("date=gt2019-03-08", {"next"}),
        ("date=sa2019-03-08", {"next"}), ("date=2019-03-08T23:30", {"late"}), ("date=ge2019-03-09T00:00:00-05:00", {"next"}),
        ("date=eb2019-03-09", {"late", "utc", "day"}), ("date=lt2019-03-08T05:00:00Z", set()),
    ):  # fmt: skip
        answer = served.get(feed, f"Observation?{query}")
        assert set(answer.ids()) == found, query
    served.close()


def test_after_a_change_of_the_zone_relabel_indexes_the_dates_again(tmp_path: Path) -> None:
    url = store_url("sqlite", tmp_path)
    before = Served(url, seeds=False)
    body = {"resourceType": "Observation", "id": "one", "status": "final", "code": {"text": "x"}, "effectiveDateTime": "2019-03-08"}
    assert before.request(before.token(), "PUT", "Observation/one", body=body).status == 201
    policy = before.parts.policy
    before.close()
    after = Served(url, seeds=False, search_timezone="America/New_York")
    assert labeling_digest(policy, zone=after.settings.search_timezone) != labeling_digest(policy)  # of which doctor tells
    after.run(relabel_store(after.parts.store, after.parts.labeler, after.settings.base, after.parts.clock()))
    for query in ("date=2019-03-08", "date=ge2019-03-08T05:00:00Z"):
        assert after.get(after.token(), f"Observation?{query}").ids() == ["one"], query
    after.close()


def test_an_unknown_zone_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_SEARCH_TIMEZONE"):
        Settings.from_environment({"FHIR_SERVER_SEARCH_TIMEZONE": "Mars/Olympus"})


def test_the_zone_is_that_of_ages_unless_another_is_named() -> None:
    ages = {"FHIR_SERVER_TIMEZONE": "America/New_York"}
    assert Settings.from_environment({}).search_timezone == "UTC"
    assert Settings.from_environment(ages).search_timezone == "America/New_York"
    assert Settings.from_environment(ages | {"FHIR_SERVER_SEARCH_TIMEZONE": "UTC"}).search_timezone == "UTC"
