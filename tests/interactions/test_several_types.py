"""Searches of several types and of compartments, each in the caller's View (http://hl7.org/fhir/R4/compartmentdefinition.html)."""

from __future__ import annotations

import pytest

from tests.served import Served

TYPES = "Observation,Condition,MedicationStatement"


def names(served: Served, token: str, path: str) -> list[str]:
    """``Type/id`` of all matches of a search, over its pages."""
    found: list[str] = []
    while path:
        answer = served.get(token, path)
        assert answer.status == 200, answer.json
        entries = [entry["resource"] for entry in answer.json.get("entry", []) if entry["search"]["mode"] == "match"]
        found += [f"{resource['resourceType']}/{resource['id']}" for resource in entries]
        path = next((link["url"] for link in answer.json["link"] if link["relation"] == "next"), "")
    return found


def of_types(served: Served, token: str, query: str, types: str = TYPES) -> list[str]:
    return [name for type in sorted(types.split(",")) for name in names(served, token, f"{type}?{query}")]


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_system_search_finds_what_the_searches_of_its_types_find(served: Served, feed: str, count: int) -> None:
    expected = of_types(served, feed, "subject=Patient/adult")
    assert len({name.partition("/")[0] for name in expected}) == 3
    assert names(served, feed, f"?_type={TYPES}&subject=Patient/adult&_count={count}") == expected
    answer = served.request(feed, "POST", "_search", form=[("_type", TYPES), ("subject", "Patient/adult"), ("_count", "1000")])
    assert [f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in answer.json["entry"]] == expected
    assert served.get(feed, f"?_type={TYPES}&subject=Patient/adult&_summary=count").json["total"] == len(expected)
    assert served.get(feed, f"?_type={TYPES}&subject=Patient/adult&_count=1&_total=accurate").json["total"] == len(expected)


def test_search_without_a_type_finds_all_that_scopes_cover(served: Served) -> None:
    token = served.app_token("parent-a", "child", "patient/Observation.rs patient/Patient.r patient/Condition.s")
    assert names(served, token, "?_count=2") == [*names(served, token, "Condition"), *names(served, token, "Observation")]
    assert served.get(token, "?_type=Patient").status == 403
    assert served.get(token, "?_type=Encounter,Observation").status == 403
    assert served.get(token, "?_type=Nothing").status == 400
    reader = served.app_token("parent-a", "child", "patient/Observation.r")
    assert served.get(reader, "").status == 403
    assert served.request(reader, "POST", "_search", form=[]).status == 403
    assert served.get(None, "").status == 401


def test_get_search_is_a_search(served: Served, feed: str) -> None:
    assert names(served, feed, "Observation/_search?code=718-7&_count=2") == names(served, feed, "Observation?code=718-7")


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("Patient/child/Observation?_count=3", "Observation?patient=child"),
        ("RelatedPerson/x/Observation", "Observation?performer=RelatedPerson/x"),
        ("Patient/adult/Observation?code=718-7", "Observation?patient=adult&code=718-7"),
        ("Practitioner/dr-chen/Observation", "Observation?performer=Practitioner/dr-chen"),
        ("Patient/adult/Patient", "Patient?_id=adult"),
    ],
)
def test_compartment_search_is_a_search_by_the_parameters_of_the_compartment(served: Served, feed: str, path: str, same: str) -> None:
    assert sorted(names(served, feed, path)) == sorted(names(served, feed, same))
    if path.startswith("Patient"):
        assert names(served, feed, path)


def test_compartment_search_by_post(served: Served, feed: str) -> None:
    answer = served.request(feed, "POST", "Patient/adult/Observation/_search", form=[("code", "718-7")])
    assert answer.status == 200
    assert answer.ids() == served.get(feed, "Patient/adult/Observation?code=718-7").ids() != []
    assert served.request(feed, "POST", "Patient/adult/_history/_search", form=[]).status == 404


def test_whole_compartment_is_all_its_types(served: Served, feed: str) -> None:
    found = names(served, feed, "Patient/teen/*?_count=7")
    types = {name.partition("/")[0] for name in found}
    assert len(found) == len(set(found)) and {"Observation", "Condition", "Patient"} <= types
    for type in types:
        assert [name for name in found if name.startswith(f"{type}/")] == names(served, feed, f"Patient/teen/{type}")


@pytest.mark.parametrize("count", [1, 100])
def test_types_of_a_whole_compartment_can_be_named(served: Served, feed: str, count: int) -> None:
    found = names(served, feed, f"Patient/teen/*?_type=Condition,Observation&_count={count}")
    assert found == names(served, feed, "Patient/teen/Condition") + names(served, feed, "Patient/teen/Observation")
    assert {name.partition("/")[0] for name in found} == {"Condition", "Observation"}
    answer = served.request(feed, "POST", "Patient/teen/*/_search", form=[("_type", "Condition"), ("_total", "accurate")])
    assert answer.json["total"] == len(names(served, feed, "Patient/teen/Condition")) > 0
    assert "_type=Condition" in answer.json["link"][0]["url"]


def test_types_of_a_compartment_are_some_that_it_has_and_that_scopes_cover(served: Served, feed: str) -> None:
    for types, text in (("Organization", "has no Organization"), ("Observation,Nothing", "Nothing is not a resource type"), ("", "not a")):
        answer = served.get(feed, f"Patient/teen/*?_type={types}")
        assert answer.status == 400 and text in answer.json["issue"][0]["diagnostics"]
    limited = served.token(scope="system/Observation.rs")
    assert served.get(limited, "Patient/teen/*?_type=Observation").ids()
    assert served.get(limited, "Patient/teen/*?_type=Condition").status == 403
    assert served.get(feed, "Patient/teen/Observation?_type=Observation").status == 400


def test_compartment_of_a_hidden_or_unknown_resource_is_empty(served: Served) -> None:
    parent = served.app_token("parent-a", "child")
    for path in ("Patient/{}/Observation", "Patient/{}/*", "Encounter/{}/Observation"):
        answers = [served.get(parent, path.format(id)) for id in ("adult", "nobody")]
        assert [answer.status for answer in answers] == [200, 200]
        assert [answer.json.get("entry") for answer in answers] == [None, None]
    assert names(served, parent, "Patient/child/Observation")


def test_parent_finds_in_the_compartment_what_other_searches_show(served: Served) -> None:
    parent = served.app_token("parent-b", "teen")
    found = names(served, parent, "Patient/teen/Observation")
    assert found == names(served, parent, "Observation?patient=teen")
    assert "Observation/teen-hemoglobin" in found and "Observation/teen-hiv-screen" not in found
    assert not any("hiv" in name for name in names(served, parent, "Patient/teen/*"))


@pytest.mark.parametrize("path", ["Patient/adult/Organization", "Organization/x/Patient", "Patient/adult/nothing", "Encounter/x/Account"])
def test_what_is_no_compartment_is_not_found(served: Served, feed: str, path: str) -> None:
    assert served.get(feed, path).status == 404


def test_searches_of_several_types_in_a_bundle(served: Served, feed: str) -> None:
    urls = ("Patient/adult/Observation?code=718-7", "?_type=Observation,Condition&_count=2", "Patient/adult/*?_count=1")
    for type in ("batch", "transaction"):
        entries = [{"request": {"method": "GET", "url": url}} for url in urls]
        answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": type, "entry": entries})
        assert [entry["resource"]["type"] for entry in answer.json["entry"]] == ["searchset"] * 3


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_compartment_takes_no_writes(served: Served, feed: str, method: str) -> None:
    assert served.request(feed, method, "Patient/adult/Observation", body={"resourceType": "Observation"}).status == 405
