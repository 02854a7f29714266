"""The audit events of requests: who requested what and for whom."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.audit.request_events import PATIENT_ROLE
from fhir_server.interactions import bulk_export_job
from fhir_server.resources.validate import check
from tests.seeded import seeded
from tests.served import Served


@pytest.fixture
def served() -> Any:
    server = seeded()
    yield server
    server.close()


def lines(served: Served) -> list[tuple[int, bytes]]:
    served.run(served.parts.auditor.flush())
    return list(served.run(served.parts.store.read_log(LOG_NAME)))


def test_each_request_records_an_audit_event_with_user_and_patient(served: Served) -> None:
    token = served.app_token("parent-a", "teen")
    served.get(token, "Observation?code=718-7")
    served.get(token, "Observation/teen-hiv-screen")
    served.get(None, "Patient/teen")
    events = [json.loads(line)["event"] for _, line in lines(served)]
    assert [(event["action"], event["outcomeDesc"]) for event in events] == [("E", "200"), ("R", "404"), ("R", "401")]
    for event in events:
        assert check("AuditEvent", event) == ()
    agents = events[0]["agent"]
    assert agents[0]["altId"] == "parent-a" and agents[0]["requestor"]
    assert {"reference": "Patient/teen"} in [agent["who"] for agent in agents]
    assert events[1]["entity"][0]["what"] == {"reference": "Observation/teen-hiv-screen"}


def test_operations_are_recorded_with_record_and_query(served: Served) -> None:
    token = served.token()
    for path in ("Patient/teen/$everything?_count=5", "Group/none/$export", "$export?_type=Patient", "$export-file/none/Patient.ndjson"):
        served.get(token, path, prefer="respond-async", accept="*/*")
    entities = [json.loads(line)["event"]["entity"][0] for _, line in lines(served)]
    asked = [b64decode(entity["query"]).decode() for entity in entities]
    assert asked == [
        "Patient/teen/$everything?_count=5",
        "Group/none/$export?",
        "$export?_type=Patient",
        "$export-file/none/Patient.ndjson?",
    ]
    assert [entity.get("what", {}).get("reference") for entity in entities] == ["Patient/teen", "Group/none", None, None]
    events = [json.loads(line)["event"] for _, line in lines(served)]
    assert {event["action"] for event in events} == {"E"} and all(check("AuditEvent", event) == () for event in events)


def test_history_of_a_type_is_recorded_with_its_query_and_whose_versions_it_showed(served: Served) -> None:
    backend, proxy = served.token(), served.app_token("parent-a", "teen")
    served.get(proxy, "Observation/_history?_count=3")
    served.request(proxy, "HEAD", "Observation/_history?_count=3")
    served.get(backend, "_history?_count=100&_sort=_lastUpdated")
    events = [json.loads(line)["event"] for _, line in lines(served)]
    asked = [b64decode(event["entity"][0]["query"]).decode() for event in events]
    assert asked == ["Observation/_history?_count=3"] * 2 + ["_history?_count=100&_sort=_lastUpdated"]
    assert all(event["action"] == "E" and check("AuditEvent", event) == () for event in events)
    patients = [{entity["what"]["reference"] for entity in event["entity"] if entity.get("role") == PATIENT_ROLE} for event in events]
    assert patients[:2] == [{"Patient/teen"}] * 2 and len(patients[2]) > 1


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_bundle_event_records_the_user_and_each_entry(served: Served, kind: str) -> None:
    token = served.app_token("parent-a", "child")
    asked = ("Patient/child", "Observation?status=final", "Patient/child/$everything")
    entries = [{"request": {"method": "GET", "url": url}} for url in asked]
    answer = served.request(token, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": entries})
    assert [entry["response"]["status"][:3] for entry in answer.json["entry"]] == ["200"] * 3
    event = json.loads(lines(served)[-1][1])["event"]
    assert check("AuditEvent", event) == ()
    assert event["agent"][0]["altId"] == "parent-a"
    assert {"reference": "Patient/child"} in [agent["who"] for agent in event["agent"]]
    asked = [entity for entity in event["entity"] if entity.get("role") != PATIENT_ROLE]
    assert [entity.get("what", {}).get("reference") for entity in asked] == ["Patient/child", None, "Patient/child"]
    assert [b64decode(entity["query"]).decode() for entity in event["entity"] if "query" in entity] == [
        "Observation?status=final",
        "Patient/child/$everything?",
    ]


def test_batch_event_records_method_and_status_of_each_entry(served: Served) -> None:
    basic = {"resourceType": "Basic", "code": {"text": "no state"}, "subject": {"reference": "Patient/adult"}}
    entries = [
        {"request": {"method": "GET", "url": "Patient/child"}},
        {"request": {"method": "GET", "url": "Patient/adult"}},
        {"request": {"method": "POST", "url": "Basic"}, "resource": basic},
        {"request": {"method": "PATCH", "url": "Patient/adult"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    served.request(served.app_token("adult", "adult"), "POST", "", body=bundle)
    entities = [one for one in json.loads(lines(served)[-1][1])["event"]["entity"] if one.get("role") != PATIENT_ROLE]
    told = [{one["type"]: one["valueString"] for one in entity["detail"]} for entity in entities]
    assert told == [
        {"method": "GET", "status": "404"},
        {"method": "GET", "status": "200"},
        {"method": "POST", "status": "422"},
        {"method": "PATCH", "status": "400"},
    ]


def test_post_search_event_records_its_query(served: Served) -> None:
    served.request(served.app_token("adult", "adult"), "POST", "Observation/_search", form=[("code", "718-7")])
    served.request(served.app_token("adult", "adult"), "POST", "Observation/_search", body={"no": "form"})
    first, second = (json.loads(line)["event"]["entity"][0]["query"] for _, line in lines(served))
    assert b64decode(first).decode() == "Observation/_search?code=718-7"
    assert b64decode(second).decode() == "Observation/_search?"


def event_of(served: Served) -> dict[str, Any]:
    """The AuditEvent of the last line, which is valid."""
    event: dict[str, Any] = json.loads(lines(served)[-1][1])["event"]
    assert check("AuditEvent", event) == ()
    return event


def patients_of(event: dict[str, Any]) -> list[str]:
    return [entity["what"]["reference"] for entity in event.get("entity", ()) if entity.get("role") == PATIENT_ROLE]


def test_events_name_the_person_the_client_and_the_patient_of_a_proxy(served: Served) -> None:
    served.get(served.app_token("parent-a", "teen"), "Patient/teen")
    person, client, patient = event_of(served)["agent"]
    assert person["who"]["reference"].startswith("RelatedPerson/") and person["altId"] == "parent-a" and person["requestor"]
    assert client["who"]["display"] == "Client demo-public" and client["type"]["coding"][0]["code"] == "110150"
    assert patient["who"] == {"reference": "Patient/teen"} and not patient["requestor"]


@pytest.mark.parametrize(
    ("user", "patient", "purpose"),
    [("adult", "adult", "PATRQT"), ("parent-a", "teen", "FAMRQT"), ("clinician", "adult", "TREAT"), ("privacy-officer", None, "HCOMPL")],
)
def test_events_have_the_purpose_of_the_callers_role(served: Served, user: str, patient: str | None, purpose: str) -> None:
    served.get(served.token("demo-public", "user/*.rs", user, patient), "Patient/adult")
    assert event_of(served)["purposeOfEvent"][0]["coding"][0]["code"] == purpose


def test_events_have_the_policy_digest_and_the_network_address(served: Served) -> None:
    served.get(served.token(), "Patient/adult")
    agent = event_of(served)["agent"][0]
    assert agent["policy"] == [f"https://fhir-server.example/ig/policy/{served.parts.policy.version}"]
    assert agent["network"] == {"address": "192.0.2.7", "type": "2"}


def test_a_search_names_every_patient_of_whom_it_showed_a_row(served: Served) -> None:
    token = served.token()
    answer = served.get(token, "Patient?_id=adult,teen,child")
    assert sorted(patients_of(event_of(served))) == ["Patient/adult", "Patient/child", "Patient/teen"] and len(answer.ids()) == 3
    line = json.loads(lines(served)[-1][1])
    assert line["shown"] == {name: [f"Patient/{name}"] for name in answer.ids()}
    served.get(token, "Patient?_id=adult,teen,child&_summary=count")
    assert patients_of(event_of(served)) == []


def test_hidden_rows_of_an_answer_are_not_recorded_as_shown(served: Served) -> None:
    served.get(served.app_token("parent-a", "teen"), "Observation?_id=teen-hiv-screen,teen-hemoglobin")
    assert json.loads(lines(served)[-1][1])["shown"] == {"teen": ["Observation/teen-hemoglobin"]}


def test_batch_and_transaction_events_name_the_patients_shown(served: Served) -> None:
    for kind in ("batch", "transaction"):
        entries = [{"request": {"method": "GET", "url": f"Patient/{id}"}} for id in ("adult", "child")]
        served.request(served.token(), "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": entries})
        assert patients_of(event_of(served)) == ["Patient/adult", "Patient/child"]


def test_a_create_names_the_new_resource_and_its_patient(served: Served) -> None:
    basic = {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}
    made = served.request(served.token(), "POST", "Basic", body=basic)
    event = event_of(served)
    assert event["entity"][0]["what"]["reference"] == f"Basic/{made.json['id']}" and patients_of(event) == ["Patient/adult"]


@pytest.mark.parametrize("path", ["../fhir", "Observation/a b", "Nope/x", "Patient/" + "x" * 65])
def test_paths_that_are_no_reference_are_not_recorded_as_one(served: Served, path: str) -> None:
    served.get(served.token(), path)
    assert all("what" not in entity for entity in event_of(served).get("entity", ()))


def test_secrets_in_a_query_are_not_recorded(served: Served) -> None:
    token = served.token()
    served.get(token, f"Patient?access_token={token}&client_secret=the-secret")
    text = b"".join(line for _, line in lines(served))
    query = b64decode(event_of(served)["entity"][0]["query"]).decode()
    assert query == "Patient?access_token=&client_secret=" and token.encode() not in text


def test_each_part_of_an_export_file_is_recorded_before_it_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_export_job, "_PAGE", 2)
    token = served.token()
    status = served.get(token, "$export?_type=Patient", prefer="respond-async").headers["content-location"]
    while (done := served.get(token, status)).status == 202:
        pass
    before = len(lines(served))
    exported = served.get(token, done.json["output"][0]["url"], accept="*/*").body.splitlines()
    parts = [json.loads(line)["event"] for _, line in lines(served)[before:]]
    named = [patient for event in parts for patient in patients_of(event)]
    assert len(parts) > 1 and sorted(named) == sorted([f"Patient/{json.loads(line)['id']}" for line in exported])
