"""Parameters of ``$export`` that shape its files, and those that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.resources import validate
from tests.bulk_data.polling import finished
from tests.bulk_data.test_bulk_export import ASYNC, exported, kicked, rows
from tests.seeded import seeded
from tests.served import Served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    served = seeded()
    yield served
    served.close()


@pytest.fixture
def feed(server: Served) -> str:
    return server.token()


def test_elements_reduce_resources_of_all_types_or_of_one(server: Served, feed: str) -> None:
    path = "Patient/$export?_type=Patient,Observation&_elements=Patient.birthDate,Observation.code,id"
    found = rows(server, feed, finished(server, feed, kicked(server, feed, path)))
    whole = exported(server, feed, "Patient/$export?_type=Patient,Observation")
    assert {type: sorted(row["id"] for row in each) for type, each in found.items()} == whole
    assert all(set(row) <= {"resourceType", "id", "meta", "birthDate"} for row in found["Patient"])
    assert all({"code", "status"} <= set(row) and "subject" not in row for row in found["Observation"])
    for row in (*found["Patient"], *found["Observation"]):
        assert "SUBSETTED" in [tag["code"] for tag in row["meta"]["tag"]]
        assert validate.check(row["resourceType"], jsontext.parse(jsontext.dumps(row))) == ()


def test_elements_of_another_type_leave_a_type_whole(server: Served, feed: str) -> None:
    path = "Patient/$export?_type=Observation&_elements=Patient.birthDate"
    found = rows(server, feed, finished(server, feed, kicked(server, feed, path)))
    assert all("subject" in row for row in found["Observation"])


def test_several_patients_are_parameters_of_a_post(server: Served, feed: str) -> None:
    named = [{"name": "patient", "valueReference": {"reference": f"Patient/{id}"}} for id in ("adult", "child")]
    body: dict[str, Any] = {"resourceType": "Parameters", "parameter": [*named, {"name": "_type", "valueString": "Observation"}]}
    answer = server.request(feed, "POST", "Patient/$export", body=body, headers=ASYNC)
    found = rows(server, feed, finished(server, feed, answer.headers["content-location"]))["Observation"]
    assert {row["subject"]["reference"] for row in found} == {"Patient/adult", "Patient/child"}


def test_a_precondition_is_refused(server: Served, feed: str) -> None:
    location = kicked(server, feed, "Patient/$export?_type=Patient")
    tag = {"if-none-match": 'W/"1"'}
    assert server.request(feed, "GET", "Patient/$export", headers=ASYNC | tag).status == 400
    assert [server.request(feed, method, location, headers=tag).status for method in ("GET", "DELETE")] == [400, 400]


@pytest.mark.parametrize("query", ["_elements=Nothing.id", "_elements=a.b.c", "_elements=", "_elements=na%20me"])
def test_malformed_elements_are_refused(server: Served, feed: str, query: str) -> None:
    assert server.request(feed, "GET", f"Patient/$export?{query}", headers=ASYNC).status == 400


@pytest.mark.parametrize(
    ("parameter", "reason"), [("includeAssociatedData=LatestProvenanceResources", "_type"), ("organizeOutputBy=Patient", "by type alone")]
)
def test_what_is_not_served_is_refused_or_has_no_effect(server: Served, feed: str, parameter: str, reason: str) -> None:
    refused = server.request(feed, "GET", f"Patient/$export?{parameter}", headers=ASYNC)
    assert refused.status == 400 and reason in refused.json["issue"][0]["diagnostics"]
    lenient = ASYNC | {"prefer": "respond-async, handling=lenient"}
    assert server.request(feed, "GET", f"Patient/$export?{parameter}", headers=lenient).status == 202
