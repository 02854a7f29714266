"""``$everything`` of an Encounter, of a Group and of the caller's own patients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Answer, Served, store_url

VISIT = "Encounter/adult-annual-visit"


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


@pytest.fixture
def feed(served: Served) -> str:
    return served.token()


def names(answer: Answer, mode: str | None = None) -> list[str]:
    assert answer.status == 200, answer.body
    entries = [entry for entry in answer.json.get("entry", ()) if mode in (None, entry["search"]["mode"])]
    return [f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in entries]


def whole(served: Served, token: str, path: str) -> list[str]:
    found: list[str] = []
    while path:
        answer = served.get(token, path)
        found += names(answer, "match")
        path = next((link["url"] for link in answer.json["link"] if link["relation"] == "next"), "")
    return found


def parameters(**values: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": name, **value} for name, value in values.items()]}


def group(id: str, *members: str, former: str = "") -> dict[str, Any]:
    member = [{"entity": {"reference": f"Patient/{one}"}} for one in members]
    member += [{"entity": {"reference": f"Patient/{former}"}, "inactive": True}] if former else []
    return {"resourceType": "Group", "id": id, "type": "person", "actual": True, "member": member}


def test_an_encounter_has_itself_its_patient_and_what_names_it(served: Served, feed: str) -> None:
    answer = served.get(feed, f"{VISIT}/$everything")
    found = names(answer, "match")
    assert found[0] == VISIT and "Patient/adult" in found
    expected = set()
    for type in {name.partition("/")[0] for name in whole(served, feed, "Patient/adult/$everything")}:
        searched = served.get(feed, f"{VISIT}/{type}?_count=200")
        expected |= set(names(searched)) if searched.status == 200 else set()
    assert set(found) == expected | {VISIT, "Patient/adult"} and len(expected) > 2
    assert {name.partition("/")[0] for name in names(answer, "include")} <= {"Practitioner", "Organization", "Location", "Medication"}
    assert names(served.request(feed, "POST", f"{VISIT}/$everything", body=parameters())) == names(answer)
    assert whole(served, feed, f"{VISIT}/$everything?_count=1") == found
    assert {name.partition("/")[0] for name in names(served.get(feed, f"{VISIT}/$everything?_type=Observation"))} == {"Observation"}


def test_a_group_has_the_records_of_its_members(served: Served, feed: str) -> None:
    assert served.request(feed, "PUT", "Group/some", body=group("some", "adult", "child", former="senior")).status == 201
    found = whole(served, feed, "Group/some/$everything?_count=7")
    records = [name for id in ("adult", "child") for name in whole(served, feed, f"Patient/{id}/$everything")]
    assert found[0] == "Group/some" and set(found) == {"Group/some", *records} and len(found) == len(set(found))
    assert "Patient/senior" not in found
    within = names(served.get(feed, "Group/some/$everything?_type=Observation&start=2020-01-01"))
    assert {name.partition("/")[0] for name in within} == {"Observation"}


def test_without_an_id_it_is_the_record_in_context(served: Served, feed: str) -> None:
    own = served.app_token("adult", "adult")
    assert whole(served, own, "Patient/$everything") == whole(served, own, "Patient/adult/$everything")
    proxy = served.app_token("parent-a", "teen")
    assert names(served.request(proxy, "POST", "Patient/$everything", body=parameters())) == names(
        served.get(proxy, "Patient/teen/$everything")
    )
    assert served.get(feed, "Patient/$everything").status == 403
    assert served.get(None, "Patient/$everything").status == 401


def test_what_a_caller_does_not_see_is_in_none_of_them(served: Served, feed: str) -> None:
    sensitive = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    assert served.request(feed, "PUT", "Encounter/teen-open", body={
        "resourceType": "Encounter", "id": "teen-open", "status": "finished", "subject": {"reference": "Patient/teen"},
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}, "serviceType": {"coding": [
            {"system": "http://terminology.hl7.org/CodeSystem/service-type", "code": "124"}]}}).status == 201  # fmt: skip
    result = {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/teen"},
              "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
              "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
              "encounter": {"reference": "Encounter/teen-open"}}  # fmt: skip
    assert served.request(feed, "PUT", "Observation/in-open", body=result | {"id": "in-open"}).status == 201
    parent, path = served.app_token("parent-a", "teen"), "Encounter/teen-open/$everything"
    before = served.get(parent, path)
    assert "Observation/in-open" in names(before)
    assert served.request(feed, "PUT", "Observation/in-open-2", body=result | {"id": "in-open-2", "meta": sensitive}).status == 201
    assert served.get(parent, path).body == before.body and "Observation/in-open-2" in names(served.get(feed, path))
    hidden, absent = (served.get(parent, f"Encounter/{id}/$everything") for id in (VISIT.partition("/")[2], "nothing"))
    assert (hidden.status, absent.status) == (404, 404)
    assert (served.get(parent, "Group/some/$everything").status, served.get(parent, "Group/none/$everything").status) == (404, 404)


@pytest.mark.parametrize(
    "path", [f"{VISIT}/$everything?start=2020", "Patient/adult/$everything?colour=red", f"{VISIT}/$everything?_type=X"]
)
def test_parameters_are_those_of_each_operation(served: Served, feed: str, path: str) -> None:
    assert served.get(feed, path).status == 400


def test_the_record_is_read_by_scopes_of_its_types(served: Served) -> None:
    some = served.token(scope="system/Encounter.r system/Observation.r")
    assert {name.partition("/")[0] for name in names(served.get(some, f"{VISIT}/$everything"))} == {"Encounter", "Observation"}
    assert served.get(served.token(scope="system/Observation.r"), f"{VISIT}/$everything").status == 403
