"""Includes in several steps and of all references, each step in the caller's View (http://hl7.org/fhir/R4/search.html#revinclude)."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.interactions import included
from tests.served import Answer, Served


def by_mode(answer: Answer, mode: str) -> list[str]:
    """``Type/id`` of the entries of this mode."""
    assert answer.status == 200, answer.json
    entries = [entry["resource"] for entry in answer.json.get("entry", []) if entry["search"]["mode"] == mode]
    return [f"{resource['resourceType']}/{resource.get('id')}" for resource in entries]


@pytest.fixture(scope="module")
def chain(served: Served, feed: str) -> list[str]:
    """Observations each derived from the next, the last one hidden from parents."""
    ids = [f"chain-{number}" for number in range(4)]
    entries: list[dict[str, Any]] = []
    for number, id in enumerate(ids):
        row: dict[str, Any] = {
            "resourceType": "Observation",
            "id": id,
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "68961-2" if number == 3 else "718-7"}]},
            "subject": {"reference": "Patient/child"},
        }
        if number < 3:
            row["derivedFrom"] = [{"reference": f"Observation/{ids[number + 1]}"}]
        entries.append({"resource": row, "request": {"method": "PUT", "url": f"Observation/{id}"}})
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert served.request(feed, "POST", "", body=bundle).status == 200
    return ids


def test_include_follows_one_step_and_iterates_when_asked(served: Served, feed: str, chain: list[str]) -> None:
    once = served.get(feed, "Observation?_id=chain-0&_include=Observation:derived-from")
    assert by_mode(once, "include") == ["Observation/chain-1"]
    whole = served.get(feed, "Observation?_id=chain-0&_include:iterate=Observation:derived-from")
    assert by_mode(whole, "include") == [f"Observation/{id}" for id in chain[1:]]
    back = served.get(feed, "Observation?_id=chain-3&_revinclude:iterate=Observation:derived-from")
    assert sorted(by_mode(back, "include")) == [f"Observation/{id}" for id in chain[:3]]


def test_iteration_ends_in_a_circle(served: Served, feed: str) -> None:
    rows = [
        {
            "resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"},
            "subject": {"reference": "Patient/adult"}, "hasMember": [{"reference": f"Observation/{other}"}],
        }
        for id, other in (("round-a", "round-b"), ("round-b", "round-a"))
    ]  # fmt: skip
    entries = [{"resource": row, "request": {"method": "PUT", "url": f"Observation/{row['id']}"}} for row in rows]
    assert served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries}).status == 200
    answer = served.get(feed, "Observation?_id=round-a&_include:iterate=Observation:has-member")
    assert by_mode(answer, "include") == ["Observation/round-b"]


def test_iteration_goes_on_from_another_type(served: Served, feed: str, chain: list[str]) -> None:
    answer = served.get(feed, "Observation?_id=chain-0&_include=Observation:subject&_revinclude:iterate=Condition:subject")
    found = by_mode(answer, "include")
    assert "Patient/child" in found
    assert {name for name in found if name.startswith("Condition/")} == {
        f"Condition/{id}" for id in served.get(feed, "Condition?patient=child").ids()
    }


def test_wildcards_include_all_references(served: Served, feed: str, chain: list[str]) -> None:
    answer = served.get(feed, "Observation?_id=chain-1&_include=*")
    assert sorted(by_mode(answer, "include")) == ["Observation/chain-2", "Patient/child"]
    back = by_mode(served.get(feed, "Patient?_id=child&_revinclude=*"), "include")
    assert {f"Observation/{id}" for id in chain} <= set(back) and any(name.startswith("RelatedPerson/") for name in back)
    assert set(by_mode(served.get(feed, "Patient?_id=child&_revinclude=Observation:*"), "include")) == {
        name for name in back if name.startswith("Observation/")
    }


def test_steps_do_not_go_through_hidden_resources(served: Served, feed: str, chain: list[str]) -> None:
    parent = served.app_token("parent-a", "child")
    hidden = served.request(feed, "PUT", "Observation/chain-2", body={**served.get(feed, "Observation/chain-2").json, "meta": {
        "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PHY"}]}})  # fmt: skip
    assert hidden.status == 200 and served.get(parent, "Observation/chain-2").status == 404
    answer = served.get(parent, "Observation?_id=chain-0&_include:iterate=Observation:derived-from")
    assert by_mode(answer, "include") == ["Observation/chain-1"]
    back = served.get(parent, "Observation?_id=chain-1&_revinclude:iterate=Observation:derived-from")
    assert by_mode(back, "include") == ["Observation/chain-0"]


def test_too_many_included_resources_are_cut_with_a_note(served: Served, feed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = by_mode(served.get(feed, "Patient?_id=adult&_revinclude=*"), "include")
    assert len(every) > 3 and by_mode(served.get(feed, "Patient?_id=adult&_revinclude=*"), "outcome") == []
    monkeypatch.setattr(included, "MAX_INCLUDED", 3)
    answer = served.get(feed, "Patient?_id=adult&_revinclude=*")
    assert by_mode(answer, "include") == every[:3] and len(by_mode(answer, "outcome")) == 1
    monkeypatch.setattr(included, "MAX_INCLUDED", len(every))
    assert by_mode(served.get(feed, "Patient?_id=adult&_revinclude=*"), "outcome") == []
