"""Chained ``_sort`` over HTTP: the values are those of resources that this caller sees; any other sorts as if it did not exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.search import limits
from tests.seeded import seeded_with
from tests.served import Served

_HELD = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2026-11-22T00:00:00Z"}]


def _visit(id: str, start: str, **more: Any) -> dict[str, Any]:
    about = {"status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/adult"}}
    return {"resourceType": "Encounter", "id": id, **about, "period": {"start": start}, **more}


def _result(id: str, *parts: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": id, "status": "final", "code": {"coding": [{"system": "urn:tests", "code": "sorted"}]},
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "subject": {"reference": "Patient/adult"}, "effectiveDateTime": "2026-05-05",
        **({"hasMember": [{"reference": f"Observation/{part}"} for part in parts]} if parts else {}), **more,
    }  # fmt: skip


def _part(id: str, day: str, **more: Any) -> dict[str, Any]:
    return _result(id, **{"code": {"text": "a part"}, "effectiveDateTime": day, **more})


ROWS = (
    {"resourceType": "Practitioner", "id": "zoe", "name": [{"family": "Zimmer"}]},
    {"resourceType": "Practitioner", "id": "ann", "name": [{"family": "Abel"}]},
    _part("early", "2026-01-01"), _part("middle", "2026-02-01"), _part("late", "2026-03-01"),
    _part("held", "2025-01-01", extension=_HELD), _part("oldest", "2025-01-01"),
    _result("none"), _result("one", "late", performer=[{"reference": "Practitioner/zoe"}]),
    _result("two", "early", "late", performer=[{"reference": "Practitioner/ann"}]),
    _result("three", "middle", "held"), _result("four", "oldest"), _result("five", "middle"),
)  # fmt: skip
WHERE = "code=urn:tests|sorted"
FEED = {
    "has-member:Observation.date": ["three", "four", "two", "five", "one", "none"],
    "-has-member:Observation.date": ["one", "two", "three", "five", "four", "none"],
    "performer:Practitioner.family,_id": ["two", "one", "five", "four", "none", "three"],
}
OWN = {
    "has-member:Observation.date": ["four", "two", "three", "five", "one", "none"],
    "-has-member:Observation.date": ["one", "two", "three", "five", "four", "none"],
    "has-member:Observation.date,-_id": ["four", "two", "three", "five", "one", "none"],
    "performer:Practitioner.family,_id": ["two", "one", "five", "four", "none", "three"],
    "-performer.family,_id": ["one", "two", "five", "four", "none", "three"],
    "-subject:Patient.birthdate,_id": ["five", "four", "none", "one", "three", "two"],
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded_with(ROWS)
    yield server
    server.close()


def _own(served: Served, scope: str = "patient/*.rs") -> str:
    return served.app_token("adult", "adult", scope)


def _ids(answer: Any) -> list[str]:
    assert answer.status == 200, answer.json
    return [entry["resource"]["id"] for entry in answer.json.get("entry", ())]


@pytest.mark.parametrize("sort", FEED)
def test_rows_come_in_the_order_of_the_values_of_the_rows_they_name(served: Served, sort: str) -> None:
    assert _ids(served.get(served.token(), f"Observation?{WHERE}&_sort={sort}")) == FEED[sort]


@pytest.mark.parametrize("sort", OWN)
def test_row_that_the_caller_does_not_see_has_no_part_in_the_order(served: Served, sort: str) -> None:
    assert _ids(served.get(_own(served), f"Observation?{WHERE}&_sort={sort}")) == OWN[sort]


@pytest.mark.parametrize("sort", OWN)
def test_pages_in_a_chained_order_are_the_whole_result(served: Served, sort: str) -> None:
    found, token, url = [], _own(served), f"Observation?{WHERE}&_sort={sort}&_count=1"
    while url:
        answer = served.get(token, url)
        found += _ids(answer)
        url = next((link["url"].partition("/fhir/")[2] for link in answer.json["link"] if link["relation"] == "next"), "")
    assert found == OWN[sort]


def test_caller_sorts_only_by_types_that_may_be_searched(served: Served) -> None:
    token = _own(served, "patient/Observation.rs patient/Patient.r")
    assert served.get(token, f"Observation?{WHERE}&_sort=performer:Practitioner.family").status == 403
    assert served.get(token, f"Observation?{WHERE}&_sort=subject:Patient.birthdate").status == 403
    assert served.get(token, f"Observation?{WHERE}&_sort=has-member:Observation.date").status == 200


def test_last_parameter_is_none_whose_targets_may_be_hidden(served: Served) -> None:
    refused = served.get(_own(served), f"Observation?{WHERE}&_sort=has-member:Observation.encounter")
    assert refused.status == 400 and "neither :missing nor _sort" in refused.json["issue"][0]["diagnostics"]


def test_number_of_rows_in_a_chained_order_is_limited_by_what_the_caller_sees(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = len(OWN["has-member:Observation.date"])
    url = f"Observation?{WHERE}&_sort=has-member:Observation.date"
    monkeypatch.setattr("fhir_server.access.view.MAX_CHAIN_SORTED", rows)
    monkeypatch.setattr(limits, "MAX_CHAIN_SORTED", rows)
    assert served.get(_own(served), url).status == 200
    monkeypatch.setattr("fhir_server.access.view.MAX_CHAIN_SORTED", rows - 1)
    monkeypatch.setattr(limits, "MAX_CHAIN_SORTED", rows - 1)
    refused = served.get(_own(served), url)
    assert refused.status == 400 and f"more than {rows - 1} resources" in refused.json["issue"][0]["diagnostics"]
