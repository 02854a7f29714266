"""``Patient/{id}/$everything``: its parameters, by GET and by POST (http://hl7.org/fhir/R4/operation-patient-everything.html)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served import Answer, Served

PATH = "Patient/adult/$everything"


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.json
    resources = [entry["resource"] for entry in answer.json.get("entry", [])]
    return [f"{resource['resourceType']}/{resource['id']}" for resource in resources]


def parameters(**values: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": name, **value} for name, value in values.items()]}


def test_post_answers_as_get(served: Served, feed: str) -> None:
    whole = names(served.get(feed, PATH))
    assert len(whole) > 10
    assert names(served.request(feed, "POST", PATH)) == whole
    assert names(served.request(feed, "POST", PATH, body=parameters())) == whole
    page = served.request(feed, "POST", PATH, body=parameters(_count={"valueInteger": 3}, _type={"valueCode": "Observation"}))
    assert names(page) == names(served.get(feed, f"{PATH}?_count=3&_type=Observation"))
    following = next(link["url"] for link in page.json["link"] if link["relation"] == "next")
    assert names(served.get(feed, following)) and set(names(served.get(feed, following))).isdisjoint(names(page))


def test_types_of_a_parameters_resource_are_a_list(served: Served, feed: str) -> None:
    types = [{"name": "_type", "valueCode": type} for type in ("Observation", "Condition")]
    answer = served.request(feed, "POST", PATH, body={"resourceType": "Parameters", "parameter": types})
    assert names(answer) == names(served.get(feed, f"{PATH}?_type=Observation,Condition"))


@pytest.mark.parametrize("body", [{"resourceType": "Patient"}, parameters(colour={"valueString": "red"}), b"{", b"[]"])
def test_malformed_parameters_are_refused(served: Served, feed: str, body: Any) -> None:
    assert served.request(feed, "POST", PATH, body=body).status == 400


def test_only_types_that_are_asked_for_are_returned(served: Served, feed: str) -> None:
    found = {name.partition("/")[0] for name in names(served.get(feed, f"{PATH}?_type=Observation"))}
    assert found == {"Observation"}
    with_people = {name.partition("/")[0] for name in names(served.get(feed, f"{PATH}?_type=Observation,Practitioner"))}
    assert with_people == {"Observation", "Practitioner"}


def test_period_keeps_resources_without_a_date_of_care(served: Served, feed: str) -> None:
    rows = {
        "undated": {},
        "inside": {"effectiveDateTime": "2021-06-01"},
        "outside": {"effectiveDateTime": "2019-06-01"},
    }
    for id, more in rows.items():
        body = {"resourceType": "Observation", "id": f"care-{id}", "status": "final", "code": {"text": "x"},
                "subject": {"reference": "Patient/adult"}, **more}  # fmt: skip
        assert served.request(feed, "PUT", f"Observation/care-{id}", body=body).status == 201
    found = names(served.get(feed, f"{PATH}?start=2021-01-01&end=2021-12-31&_type=Observation"))
    assert {"Observation/care-undated", "Observation/care-inside"} <= set(found) and "Observation/care-outside" not in found


def test_post_needs_a_scope_before_its_body_is_read(served: Served) -> None:
    token = served.app_token("parent-a", "child", "patient/Observation.rs")
    assert served.request(token, "POST", PATH, body=b"{").status == 403
    assert served.request(None, "POST", PATH, body=b"{").status == 401
    parent = served.app_token("parent-a", "child")
    hidden, absent = (served.request(parent, "POST", f"Patient/{id}/$everything", body=parameters()) for id in ("adult", "nobody"))
    assert (hidden.status, absent.status) == (404, 404)


@pytest.mark.parametrize("path", ["Patient/adult", "Patient/adult/_history/1", "Patient/adult/$everything"])
def test_reads_return_the_elements_that_are_asked_for(served: Served, feed: str, path: str) -> None:
    def resource(query: str) -> Any:
        answer = served.get(feed, f"{path}?{query}").json
        return answer["entry"][0]["resource"] if answer["resourceType"] == "Bundle" else answer

    whole, some = resource(""), resource("_elements=birthDate")
    assert some["birthDate"] == whole["birthDate"] and "name" in whole and "name" not in some
    assert some["meta"]["tag"][-1]["code"] == "SUBSETTED" and some["meta"]["versionId"] == whole["meta"]["versionId"]
    assert "text" not in resource("_summary=data")
    assert served.get(feed, f"{path}?_summary=count").status == 400
    assert served.get(feed, f"{path}?_elements=a.b").status == 400


def test_pretty_answers_are_indented_and_keep_every_digit(served: Served, feed: str) -> None:
    row = b'{"resourceType":"Observation","id":"digits","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/adult"},' \
          b'"valueQuantity":{"value":1.50}}'  # fmt: skip
    assert served.request(feed, "PUT", "Observation/digits", body=row).status == 201
    plain, pretty = served.get(feed, "Observation/digits"), served.get(feed, "Observation/digits?_pretty=true")
    assert pretty.json == plain.json and b'\n    "value": 1.50' in pretty.body and b"\n" not in plain.body
    assert int(pretty.headers["content-length"]) == len(pretty.body)
    assert served.get(feed, "Observation?_id=digits&_pretty=true").body.startswith(b'{\n  "resourceType": "Bundle"')
