"""The history of a resource in pages (http://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served

MINUTE = 60_000_000
ROW = "Observation/adult-hemoglobin"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    body = server.get(server.token(), ROW).json
    for number in range(2, 8):
        server.at(server.parts.clock() + MINUTE)
        assert server.request(server.token(), "PUT", ROW, body={**body, "note": [{"text": f"note {number}"}]}).status == 200
    yield server
    server.close()


@pytest.fixture(params=["backend", "patient"])
def caller(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def token(served: Served, caller: str) -> str:
    return served.token() if caller == "backend" else served.app_token("adult", "adult")


def _total(caller: str) -> int | None:
    """The total of a history of several pages: a caller from whom something may be hidden is told none."""
    return 7 if caller == "backend" else None


def _numbers(bundle: Any) -> list[str]:
    return [entry["resource"]["meta"]["versionId"] for entry in bundle.get("entry", [])]


def _next(served: Served, bundle: Any) -> str | None:
    links = {link["relation"]: link["url"] for link in bundle["link"]}
    return links["next"].partition("/fhir/")[2] if "next" in links else None


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 8])
def test_pages_hold_every_version_once_newest_first(served: Served, caller: str, token: str, count: int) -> None:
    address: str | None = f"{ROW}/_history?_count={count}"
    numbers: list[str] = []
    while address is not None:
        bundle = served.get(token, address).json
        assert bundle["type"] == "history" and bundle.get("total") == (7 if count >= 7 and address.endswith(str(count)) else _total(caller))
        assert len(bundle["entry"]) <= count
        numbers += _numbers(bundle)
        address = _next(served, bundle)
    assert numbers == ["7", "6", "5", "4", "3", "2", "1"]


def test_only_the_oldest_version_is_a_creation(served: Served, token: str) -> None:
    bundle = served.get(token, f"{ROW}/_history?_count=3").json
    assert [entry["request"]["method"] for entry in bundle["entry"]] == ["PUT", "PUT", "PUT"]
    last = served.get(token, f"{ROW}/_history").json
    assert last["entry"][-1]["request"]["method"] == "POST" and last["entry"][-1]["response"]["status"] == "201 Created"


def test_count_zero_gives_the_total_alone(served: Served, caller: str, token: str) -> None:
    bundle = served.get(token, f"{ROW}/_history?_count=0").json
    assert bundle.get("total") == _total(caller) and "entry" not in bundle and _next(served, bundle) is None


def test_since_ends_the_history_at_an_instant(served: Served, token: str) -> None:
    times = {number: served.get(token, f"{ROW}/_history/{number}").json["meta"]["lastUpdated"] for number in range(1, 8)}
    bundle = served.get(token, f"{ROW}/_history?_since={times[5]}").json
    assert _numbers(bundle) == ["7", "6", "5"] and bundle["total"] == 3
    first = served.get(token, f"{ROW}/_history?_since={times[5]}&_count=2").json
    assert _numbers(first) == ["7", "6"] and "total" not in first
    second = served.get(token, _next(served, first) or "").json
    assert _numbers(second) == ["5"] and _next(served, second) is None
    assert _numbers(served.get(token, f"{ROW}/_history?_since=2999-01-01T00:00:00Z").json) == []


def test_plus_of_an_offset_may_stand_in_a_query_string_as_it_is(served: Served, token: str) -> None:
    at = served.get(token, f"{ROW}/_history/5").json["meta"]["lastUpdated"].replace("Z", "+00:00")
    for sent in (at, at.replace("+", "%2B")):
        assert _numbers(served.get(token, f"{ROW}/_history?_since={sent}").json) == ["7", "6", "5"]
    assert served.get(token, f"{ROW}/_history?_since=2026-01-01+12:00").status == 400


def test_version_is_found_by_its_number_alone(served: Served, token: str) -> None:
    for number in range(1, 8):
        body = served.get(token, f"{ROW}/_history/{number}").json
        assert body["meta"]["versionId"] == str(number)
        assert body.get("note", [{}])[0].get("text") == (f"note {number}" if number > 1 else None)
    for wrong in ("0", "8", "07", "-1", "x", "9" * 5000, "%C2%B2"):
        assert served.get(token, f"{ROW}/_history/{wrong}").status == 404


@pytest.mark.parametrize("query", ["_count=-1", "_count=x", "_since=yesterday", "_page=x", f"_count={'9' * 5000}"])
def test_malformed_parameters_are_refused(served: Served, token: str, query: str) -> None:
    assert served.get(token, f"{ROW}/_history?{query}").status == 400


def test_page_link_is_valid_for_its_caller_and_resource_alone(served: Served) -> None:
    patient, backend = served.app_token("adult", "adult"), served.token()
    link = _next(served, served.get(patient, f"{ROW}/_history?_count=2").json) or ""
    assert served.get(patient, link).status == 200
    assert served.get(backend, link).status == 400
    assert served.get(patient, link.replace("_count=2", "_count=3")).status == 400
    assert served.get(patient, link.replace("adult-hemoglobin", "adult-glucose")).status == 400


def test_unknown_parameter_is_refused_unless_handling_is_lenient(served: Served, token: str) -> None:
    assert served.get(token, f"{ROW}/_history?_colour=red").status == 400
    assert served.request(token, "GET", f"{ROW}/_history?_colour=red", headers={"prefer": "handling=lenient"}).status == 200
