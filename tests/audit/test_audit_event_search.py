"""``GET AuditEvent`` from the audit log: the privacy officer sees all, a patient who opened the record, a proxy the own acts."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.access import audit_projection, audit_trail
from fhir_server.resources.validate import check
from tests.seeded import seeded
from tests.served import Served, store_url


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path))
    yield server
    server.close()


@pytest.fixture
def fast() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


def officer(served: Served) -> str:
    return served.token("demo-public", "user/*.rs", "privacy-officer")


def clinician(served: Served) -> str:
    return served.token("demo-public", "user/*.rs", "clinician")


def events(served: Served, token: str, query: str = "") -> list[dict[str, Any]]:
    """The AuditEvents of all pages."""
    found, path = [], f"AuditEvent?{query}"
    while path:
        page = served.get(token, path)
        assert page.status == 200, page.body
        found += [entry["resource"] for entry in page.json.get("entry", ())]
        path = next((link["url"] for link in page.json["link"] if link["relation"] == "next"), "")
    for event in found:
        assert check("AuditEvent", event) == ()
    return found


def asked(event: dict[str, Any]) -> list[str]:
    """What an event's request named or searched."""
    entities = event.get("entity", ())
    return [
        b64decode(entity["query"]).decode() if "query" in entity else entity["what"]["reference"]
        for entity in entities
        if "query" in entity or ("what" in entity and entity.get("role", {}).get("code") != "1")
    ]


def who(event: dict[str, Any]) -> str:
    shown: dict[str, str] = event["agent"][0]["who"]
    return shown.get("reference", shown.get("display", ""))


def test_the_privacy_officer_finds_every_line_by_r4s_parameters(served: Served) -> None:
    token = officer(served)
    served.get(clinician(served), "Patient/adult")
    served.get(served.app_token("parent-a", "teen"), "Observation?code=718-7")
    served.get(None, "Patient/adult")
    everything = events(served, token)
    assert len(everything) == 3
    assert [asked(event) for event in everything] == [["Patient/adult"], ["Observation?code=718-7"], ["Patient/adult"]]
    for query, count in (
        ("patient=adult", None), ("patient=Patient/teen", None), ("entity=Patient/adult&action=R", 2), ("action=E", None),
        ("action=R", 2), ("type=rest", None), ("outcome=4", 1), ("outcome=0&patient=adult&action=R", 1), ("date=ge2026-11-21", None),
        ("date=lt2026-11-21", 0), ("altid=parent-a", 1), ("address=192.0.2.7", None), ("agent=Patient/teen", 1),
        ("_id=" + everything[0]["id"], 1),
    ):  # fmt: skip
        found = events(served, token, query)
        if count is None:
            assert len(found) >= 1 and found[0]["resourceType"] == "AuditEvent", query
        else:
            assert len(found) == count, query


def test_reading_the_audit_log_is_itself_recorded(served: Served) -> None:
    token = officer(served)
    served.get(clinician(served), "Patient/adult")
    events(served, token, "patient=adult")
    newest = events(served, token)[0]
    assert newest["agent"][0]["altId"] == "privacy-officer" and asked(newest)[0].startswith("AuditEvent?patient=adult")
    assert "Patient/adult" in [entity["what"]["reference"] for entity in newest["entity"] if "what" in entity]


def test_an_audit_event_can_be_read_by_its_id(served: Served) -> None:
    token = officer(served)
    served.get(clinician(served), "Patient/adult")
    event = events(served, token)[0]
    answer = served.get(token, f"AuditEvent/{event['id']}")
    assert answer.json == event and answer.json["meta"]["versionId"] == "1"
    assert served.get(served.app_token("parent-a", "teen"), f"AuditEvent/{event['id']}").status == 404
    other = event["id"][:-1] + ("0" if event["id"][-1] != "0" else "1")
    assert [served.get(token, f"AuditEvent/{id}").status for id in (other, "none", "00" * 24)] == [404] * 3


def test_pages_hold_each_event_once_and_sort_by_date(served: Served) -> None:
    token = officer(served)
    for minute in range(9):
        served.at(f"2026-11-21T12:0{(minute * 4) % 9}:00-05:00")
        served.get(clinician(served), "Patient/adult")
    query = "patient=adult&outcome=0&action=R&_count=2"
    unsorted = events(served, token, query)
    assert len(unsorted) == len({event["id"] for event in unsorted}) == 9
    ascending = [event["recorded"] for event in events(served, token, query + "&_sort=date")]
    assert ascending == sorted(ascending) and len(set(ascending)) == 9
    assert [event["recorded"] for event in events(served, token, query + "&_sort=-date")] == ascending[::-1]
    counted = served.get(token, "AuditEvent?patient=adult&action=R&_summary=count").json
    assert counted["total"] == 9 and "entry" not in counted


def test_stored_and_logged_audit_events_are_pages_of_one_search(fast: Served) -> None:
    stored = {
        "resourceType": "AuditEvent", "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "recorded": "2026-11-21T12:00:30Z", "agent": [{"requestor": True, "who": {"display": "another system"}}],
        "source": {"observer": {"display": "another system"}}, "entity": [{"what": {"reference": "Patient/adult"}}],
    }  # fmt: skip
    for _ in range(3):
        assert fast.request(fast.token(), "POST", "AuditEvent", body=stored).status == 201
    token = officer(fast)
    for query in ("patient=adult&_count=2", "patient=adult&_count=2&_sort=-date", "patient=adult&_count=50"):
        fast.get(clinician(fast), "Patient/adult")
        found = events(fast, token, query)
        assert len({event["id"] for event in found}) == len(found)
        assert sum(event["source"]["observer"]["display"] == "another system" for event in found) == 3
        assert sum(event["source"]["observer"]["display"] == "fhir-server" for event in found) >= 3


def test_an_adult_sees_who_opened_the_record_without_what_was_asked(served: Served) -> None:
    served.get(clinician(served), "Observation?patient=adult&_count=3")
    served.get(served.token(), "Patient/adult")
    found = events(served, served.app_token("adult", "adult"))
    assert sorted(who(event) for event in found) == ["Client demo-backend", "Practitioner/dr-primary"] or len(found) == 2
    for event in found:
        assert [entity["what"] for entity in event["entity"]] == [{"reference": "Patient/adult"}]
        text = json.dumps(event)
        assert "Observation" not in text and "192.0.2.7" not in text and "altId" not in text and "outcomeDesc" not in text


def test_an_adult_sees_the_own_acts_with_what_was_asked(served: Served) -> None:
    token = served.app_token("adult", "adult")
    served.get(token, "Observation?status=final&_count=3")
    found = events(served, token)
    assert [asked(event) for event in found] == [["Observation?status=final&_count=3"]]
    assert found[0]["agent"][0]["network"]["address"] == "192.0.2.7"


@pytest.mark.parametrize(("user", "patient"), [("parent-a", "teen"), ("parent-a", "child"), ("proxy-standard", "adult")])
def test_a_proxy_sees_only_the_own_acts(served: Served, user: str, patient: str) -> None:
    token = served.app_token(user, patient)
    served.get(token, f"Patient/{patient}")
    served.get(served.token(), f"Patient/{patient}")
    served.get(clinician(served), f"Patient/{patient}")
    served.get(served.token(), f"Observation?patient={patient}")
    found = events(served, token)
    assert [event["agent"][0]["altId"] for event in found] == [user]
    assert served.get(token, "AuditEvent?_total=accurate").json["total"] == 2  # and the search before


@pytest.mark.parametrize("user", ["clinician", "billing"])
def test_staff_without_the_policys_permission_see_no_line(fast: Served, user: str) -> None:
    token = fast.token("demo-public", "user/*.rs", user)
    fast.get(token, "Patient/adult")
    assert events(fast, token) == []


def test_a_system_sees_no_line_whatever_its_clearance(fast: Served) -> None:
    fast.get(fast.token(), "Patient/adult")
    assert events(fast, fast.token()) == []
    assert fast.get(fast.token(scope="system/Patient.rs"), "AuditEvent").status == 403


def test_the_log_stays_out_of_every_other_answer(fast: Served) -> None:
    for token, patient in ((officer(fast), "adult"), (fast.app_token("adult", "adult"), "adult"), (fast.token(), "adult")):
        before = (
            fast.get(token, f"Patient/{patient}/$everything").body,
            fast.get(token, "Patient?_id=adult&_revinclude=AuditEvent:entity").body,
        )
        for _ in range(3):
            fast.get(clinician(fast), "Patient/adult")
        after = (
            fast.get(token, f"Patient/{patient}/$everything").body,
            fast.get(token, "Patient?_id=adult&_revinclude=AuditEvent:entity").body,
        )
        assert before == after and b'"AuditEvent"' not in after[0] + after[1]


def test_scopes_limit_what_is_seen_of_the_log(fast: Served) -> None:
    fast.get(clinician(fast), "Patient/adult")
    fast.get(None, "Patient/adult")
    assert fast.get(fast.token("demo-public", "user/Patient.rs", "privacy-officer"), "AuditEvent").status == 403
    narrow = fast.token("demo-public", "user/AuditEvent.rs?outcome=4", "privacy-officer")
    assert {event["outcome"] for event in events(fast, narrow)} == {"4"}
    of_record = fast.token("demo-public", "patient/AuditEvent.rs", "privacy-officer", "teen")
    assert events(fast, of_record) == []


def test_examined_lines_of_a_page_are_bounded_for_the_officer(fast: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(8):
        fast.get(clinician(fast), "Patient/adult")
    monkeypatch.setattr(audit_trail, "_CHUNK", 2)
    monkeypatch.setattr(audit_trail, "_MOST", 4)
    token = officer(fast)
    first = fast.get(token, "AuditEvent?altid=nobody").json
    assert "entry" not in first and [link["relation"] for link in first["link"]] == ["self", "first", "next"]
    assert len(events(fast, token, "altid=clinician")) == 8


# Two servers that differ in rows that the callers may not see get the same requests.
CALLERS: dict[str, Callable[[Served], str]] = {
    "parent of a teen": lambda served: served.app_token("parent-a", "teen"),
    "adult": lambda served: served.app_token("adult", "adult"),
}
HELD = {"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PHY"}]}}
HIDDEN: list[tuple[str, str, dict[str, Any]]] = [("teen", "75622-1", {}), ("adult", "718-7", HELD)]
QUERIES = (
    "_count=100",
    "_count=2",
    "_sort=-date&_count=3",
    "_summary=count",
    "action=R&_total=accurate",
    "entity=Observation/hidden-0",
    "outcome=4",
)


def write_hidden(served: Served, *, into_their_records: bool) -> None:
    """Store rows that the callers may not see: sensitive ones of their records, or else rows of another patient."""
    for number, (patient, code, more) in enumerate(HIDDEN):
        subject = {"reference": f"Patient/{patient if into_their_records else 'newly-adult'}"}
        code_of_test = {"coding": [{"system": "http://loinc.org", "code": code}]}
        row = {"resourceType": "Observation", "id": f"hidden-{number}", "status": "final", "code": code_of_test, "subject": subject}
        written = served.request(
            served.token(), "PUT", f"Observation/hidden-{number}", body={**row, "effectiveDateTime": "2026-11-01", **more}
        )
        assert written.status == 201, written.body


def answers(*, hidden_rows: bool) -> dict[str, list[str]]:
    """Each caller's AuditEvents after the same requests by everybody, on a server with or without the hidden rows."""
    served = seeded()
    try:
        write_hidden(served, into_their_records=hidden_rows)
        system, staff = served.token(), clinician(served)
        for caller, patient in ((CALLERS["parent of a teen"](served), "teen"), (CALLERS["adult"](served), "adult")):
            for number in range(len(HIDDEN)):
                for asker in (caller, system, staff):
                    served.get(asker, f"Observation/hidden-{number}")
                    served.get(asker, f"Observation?_id=hidden-{number}")
            served.get(system, f"Observation?patient={patient}&code=75622-1,718-7&date=2026-11-01")
            served.get(system, f"Observation?patient={patient}&status=final&_count=200")
            served.get(caller, "Observation?code=75622-1,718-7")
            served.get(staff, f"Patient/{patient}")
            batch = [{"request": {"method": "GET", "url": f"Observation/hidden-{number}"}} for number in range(len(HIDDEN))]
            served.request(caller, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": batch})
        # a page link is bound to its token, which is random
        found = {
            name: [re.sub(r"_page=[\w-]+", "_page=", served.get(caller(served), f"AuditEvent?{query}").body.decode()) for query in QUERIES]
            for name, caller in CALLERS.items()
        }
        assert all('"AuditEvent"' in pages[0] for pages in found.values())
        return found
    finally:
        served.close()


def test_hidden_rows_change_nothing_in_a_callers_audit_events() -> None:
    assert answers(hidden_rows=True) == answers(hidden_rows=False)


LEAKS = ("looks at hidden rows", "number of rows shown to others", "events as they were recorded")


@pytest.mark.parametrize("leak", LEAKS)
def test_twin_check_detects_a_planted_leak(leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right_of_others = audit_projection._of_others

    def looks_at_all_rows(line: Any, patient: str, visible: Any) -> Any:
        return right_of_others(line, patient, {*visible, *line.shown.get(patient, ())})

    def number_of_rows(line: Any, patient: str, visible: Any) -> Any:
        event = right_of_others(line, patient, visible)
        return event and {**event, "outcomeDesc": f"{len(line.shown.get(patient, ()))} rows"}

    def as_recorded(line: Any, *_: Any) -> Any:
        return line.event

    match leak:
        case "looks at hidden rows":
            monkeypatch.setattr(audit_projection, "_of_others", looks_at_all_rows)
        case "number of rows shown to others":
            monkeypatch.setattr(audit_projection, "_of_others", number_of_rows)
        case _:
            monkeypatch.setattr(audit_projection, "_of_others", as_recorded)
    assert answers(hidden_rows=True) != answers(hidden_rows=False)


@pytest.mark.parametrize("door", ["search", "batch"])
def test_what_was_answered_before_is_found_at_once(served: Served, door: str) -> None:
    """Lines of reads may wait beside the store for a moment; who asks for the log does not miss them."""
    token, query = officer(served), "AuditEvent?_summary=count"
    for patient in ("adult", "teen"):
        served.get(clinician(served), f"Patient/{patient}")
    if door == "search":
        total = served.get(token, query).json["total"]
    else:
        batch = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": query}}]}
        total = served.request(token, "POST", "", body=batch).json["entry"][0]["resource"]["total"]
    assert total == 2
