"""Conditions of HTTP requests (RFC 9110, section 13.1), references that an update keeps, and versions that a search includes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served import Served


def observation(id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, **more}


@pytest.mark.parametrize(
    ("etags", "names"),
    [
        ("*", True),
        (' W/"1" ', True),
        ('"1"', True),
        ("1", True),
        ('W/"9", W/"1"', True),
        ('"9","1"', True),
        ('W/"9"', False),
        ('W/"9", "8"', False),
    ],
)
def test_conditions_name_any_a_list_or_one_version(served: Served, feed: str, etags: str, names: bool) -> None:
    id = f"tag-{etags.encode().hex()}"
    assert served.request(feed, "PUT", f"Observation/{id}", body=observation(id, valueString="first")).status == 201
    assert served.get(feed, f"Observation/{id}", **{"if-none-match": etags}).status == (304 if names else 200)
    refused = served.request(feed, "PUT", f"Observation/{id}", body=observation(id), headers={"if-none-match": etags})
    assert refused.status == (412 if names else 200)
    current = served.get(feed, f"Observation/{id}").json["meta"]["versionId"]
    assert (current == "1") is names
    matched = served.request(feed, "PUT", f"Observation/{id}", body=observation(id), headers={"if-match": etags.replace("1", current)})
    assert matched.status == (200 if names else 412)


@pytest.mark.parametrize("etag", ["*", 'W/"1"'])
def test_update_as_create_takes_if_none_match_only_once(served: Served, feed: str, etag: str) -> None:
    id = f"once-{etag.encode().hex()}"
    statuses = [
        served.request(feed, "PUT", f"Observation/{id}", body=observation(id), headers={"if-none-match": etag}).status for _ in range(2)
    ]
    assert statuses == [201, 412]
    entry = {"resource": observation(id), "request": {"method": "PUT", "url": f"Observation/{id}", "ifNoneMatch": etag}}
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert served.request(feed, "POST", "", body=body).status == 412
    assert served.request(feed, "DELETE", f"Observation/{id}", headers={"if-match": "*"}).status == 204


def test_post_search_without_a_body_takes_its_parameters_from_the_url(served: Served, feed: str) -> None:
    answer = served.request(feed, "POST", "Patient/_search?_id=adult")
    assert (answer.status, answer.json["total"]) == (200, 1)


@pytest.mark.parametrize("persona", ["backend", "clinician"])
def test_update_may_keep_a_reference_to_a_deleted_resource(served: Served, feed: str, persona: str) -> None:
    token = feed if persona == "backend" else served.token("demo-public", "user/*.cruds", "clinician")
    adult = {"subject": {"reference": "Patient/adult"}}
    assert served.request(feed, "PUT", "Observation/leaves", body=observation("leaves", **adult)).status == 201
    report = {
        "resourceType": "DiagnosticReport",
        "id": "kept",
        "status": "final",
        "code": {"text": "x"},
        "result": [{"reference": "Observation/leaves"}],
        **adult,
    }
    assert served.request(feed, "PUT", "DiagnosticReport/kept", body=report).status == 201
    assert served.request(feed, "DELETE", "Observation/leaves").status == 204
    seen = served.get(token, "DiagnosticReport/kept").json
    assert served.request(token, "PUT", "DiagnosticReport/kept", body=seen | {"status": "amended"}).status == 200
    added = seen | {"result": [{"reference": "Observation/never-was"}]}
    assert served.request(token, "PUT", "DiagnosticReport/kept", body=added).status == 422  # the control
    assert served.request(feed, "DELETE", "DiagnosticReport/kept").status == 204


def patient(family: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "versions", "name": [{"family": family}]}


def included(served: Served, token: str, query: str) -> list[str]:
    entries = served.get(token, query).json["entry"]
    return [one["resource"]["name"][0]["family"] for one in entries if one["search"]["mode"] == "include"]


@pytest.mark.parametrize("base", ["", "http://127.0.0.1:8000/fhir/"])
def test_include_brings_the_version_that_a_reference_names(served: Served, feed: str, base: str) -> None:
    for family in ("Before", "Between", "After"):
        version = served.request(feed, "PUT", "Patient/versions", body=patient(family)).json["meta"]["versionId"]
    numbers = [str(int(version) - 2), str(int(version) - 1), version, "99"]
    for number in (*numbers, ""):
        reference = f"{base}Patient/versions" + (f"/_history/{number}" if number else "")
        row = observation(f"names-{number or 'none'}", subject={"reference": reference})
        assert served.request(feed, "PUT", f"Observation/{row['id']}", body=row).status in (200, 201)
    found = [included(served, feed, f"Observation?_id=names-{number or 'none'}&_include=Observation:subject") for number in (*numbers, "")]
    assert found == [["Before"], ["Between"], ["After"], [], ["After"]]
    all_of_them = ",".join(f"names-{number or 'none'}" for number in (*numbers, ""))
    assert included(served, feed, f"Observation?_id={all_of_them}&_include=Observation:subject") == ["After", "Before", "Between"]
    assert included(served, feed, f"Observation?_id={all_of_them}&_include=Observation:subject:Group") == []
    served.request(feed, "DELETE", "Patient/versions")


def test_version_of_a_hidden_resource_is_not_included(served: Served, feed: str) -> None:
    """Nor one that only somebody else counts: the number in the reference is looked up as the caller counts versions."""
    parent = served.app_token("parent-a", "teen")
    row = observation(
        "names-hidden", subject={"reference": "Patient/teen"}, code={"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    )
    row["derivedFrom"] = [{"reference": "Observation/teen-hiv-screen/_history/1"}]
    assert served.request(feed, "PUT", "Observation/names-hidden", body=row).status == 201
    query = "Observation?_id=names-hidden&_include=Observation:derived-from"
    assert [one["resource"]["id"] for one in served.get(feed, query).json["entry"]] == ["names-hidden", "teen-hiv-screen"]  # the control
    assert "teen-hiv-screen" not in served.get(parent, query).body.decode()
    served.request(feed, "DELETE", "Observation/names-hidden")
