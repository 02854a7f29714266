"""The audit events of requests: who requested what and for whom, in chains that show changed or missing lines."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME, broken_links
from fhir_server.resources.validate import check
from tests.served import Served


@pytest.fixture
def served() -> Any:
    server = Served()
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


def test_removed_or_altered_line_breaks_the_chain(served: Served) -> None:
    for _ in range(4):
        served.get(served.token(), "Patient/adult")
    kept = lines(served)
    assert len(kept) == 4 and broken_links(kept) == []
    assert broken_links([kept[0], *kept[2:]]) == [kept[2][0]]
    altered = (kept[1][0], kept[1][1].replace(b"Patient/adult", b"Patient/other"))
    assert broken_links([kept[0], altered, *kept[2:]]) == [kept[2][0]]


def test_failed_audit_writes_are_retried(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any) -> None:
        raise OSError("no space left")

    served.get(served.token(), "Patient/adult")
    with monkeypatch.context() as patch:
        patch.setattr(served.parts.store, "append_log", full)
        with pytest.raises(OSError, match="no space"):
            served.run(served.parts.auditor.flush())
    served.get(served.token(), "Patient/adult")
    kept = lines(served)
    assert len(kept) == 2 and broken_links(kept) == []


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
    assert [entity.get("what", {}).get("reference") for entity in event["entity"]] == ["Patient/child", None, "Patient/child"]
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
    entities = json.loads(lines(served)[-1][1])["event"]["entity"]
    told = [{one["type"]: one["valueString"] for one in entity["detail"]} for entity in entities]
    assert told == [
        {"method": "GET", "status": "404"},
        {"method": "GET", "status": "200"},
        {"method": "POST", "status": "422"},
        {"method": "PATCH", "status": "405"},
    ]


def test_post_search_event_records_its_query(served: Served) -> None:
    served.request(served.app_token("adult", "adult"), "POST", "Observation/_search", form=[("code", "718-7")])
    served.request(served.app_token("adult", "adult"), "POST", "Observation/_search", body={"no": "form"})
    first, second = (json.loads(line)["event"]["entity"][0]["query"] for _, line in lines(served))
    assert b64decode(first).decode() == "Observation/_search?code=718-7"
    assert b64decode(second).decode() == "Observation/_search?"
