"""A row's time never goes back, whatever the clock says; the operator is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.writing import write_times
from tests.seeded import seeded
from tests.served import Served, micros
from tests.store.conftest import RunScenario, run
from tests.store.samples import put, record, token

__all__ = ["run"]

HOUR = 3600 * 1_000_000
ROW = "Observation/adult-hemoglobin"


@pytest.fixture
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


def _set_back(served: Served, by: int) -> None:
    served.at(served.parts.clock() - by)


def _change(served: Served, text: str) -> Any:
    body = served.get(served.token(), ROW).json
    return served.request(served.token(), "PUT", ROW, body={**body, "note": [{"text": text}]}).json


def test_update_after_the_clock_was_set_back_is_later(served: Served) -> None:
    times = [_change(served, "first")["meta"]["lastUpdated"]]
    _set_back(served, HOUR)
    times += [_change(served, text)["meta"]["lastUpdated"] for text in ("second", "third")]
    assert times == sorted(set(times))
    found = served.get(served.token(), f"Observation?_lastUpdated=gt{times[0]}&_count=1000").ids()
    assert found == ["adult-hemoglobin"]
    assert served.get(served.token(), f"{ROW}/_history/4").json["meta"]["lastUpdated"] == times[2]


def test_deletion_and_new_creation_are_later_too(served: Served) -> None:
    body = _change(served, "first")
    _set_back(served, HOUR)
    assert served.request(served.token(), "DELETE", ROW).status in (200, 204)
    assert served.request(served.token(), "PUT", ROW, body=body).status == 201
    modified = [entry["response"]["lastModified"] for entry in served.get(served.token(), f"{ROW}/_history").json["entry"]]
    assert modified == sorted(modified, reverse=True)
    assert len(set(modified[:3])) == 3


def test_clock_that_does_not_go_back_dates_versions(served: Served) -> None:
    now = served.parts.clock() + HOUR
    served.at(now)
    assert micros(_change(served, "later")["meta"]["lastUpdated"]) == now - now % 1000


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(write_times, "_last_warning", -write_times._PAUSE)
    return caplog


def test_operator_is_warned_once_in_a_while(served: Served, log: pytest.LogCaptureFixture) -> None:
    _change(served, "first")
    assert log.messages == []
    _set_back(served, HOUR)
    for text in ("second", "third"):
        _change(served, text)
    (warning,) = log.messages
    assert "3600 seconds behind" in warning or "3599 seconds behind" in warning
    assert "Observation" not in warning


def test_waiting_request_is_no_reason_for_a_warning(served: Served, log: pytest.LogCaptureFixture) -> None:
    _change(served, "first")
    _set_back(served, 500_000)
    _change(served, "second")
    assert log.messages == []


def test_store_knows_a_time_that_no_clock_should_be_behind(run: RunScenario) -> None:
    async def scenario(store: Any) -> None:
        from fhir_server.access.versions import last_updated_entry

        time = 4_000_000_000_000_000
        indexed = record("a", entries=[token("code", "x"), last_updated_entry(time, 0)])
        await put(store, indexed)
        latest = await store.latest_time()
        assert latest >= (time if "Sqlite" in type(store).__name__ else 10)

    run(scenario)
