"""Hidden rows take along what sums them up, whatever hides them, and clients are told when the body changed (ETag, 304)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.resources import validate
from tests.noninterference.resource_factory import LOINC, coded, restriction
from tests.seeded import seeded
from tests.served import Served

TEEN = {"reference": "Patient/teen"}
DIV = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Hemoglobin 5.55</div>'}
LAB = [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}]


class Record:
    """The teenager's record: rows that the institution writes, and what the parent and others see of them."""

    def __init__(self, served: Served) -> None:
        self.served, self.feed, self.parent = served, served.token(), served.app_token("parent-a", "teen")

    def put(self, type: str, id: str, /, **body: Any) -> None:
        resource = {"resourceType": type, "id": id, **body}
        answer = self.served.request(self.feed, "PUT", f"{type}/{id}", body=resource)
        assert answer.status in (200, 201), answer.body

    def result(self, id: str, code: str = "718-7", **more: Any) -> None:
        self.put("Observation", id, **{"status": "final", "category": LAB, "code": coded(LOINC, code), "subject": TEEN, **more})

    def report(self, id: str, *results: str, **more: Any) -> None:
        members = [{"reference": f"Observation/{one}"} for one in results]
        self.put("DiagnosticReport", id, status="final", category=[coded("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB")],
                 code=coded(LOINC, "24323-8"), subject=TEEN, result=members, conclusion="Hemoglobin 5.55",
                 conclusionCode=[coded("http://hl7.org/fhir/sid/icd-10-cm", "D50.9")], **more)  # fmt: skip

    def restrict(self, id: str, row: str) -> None:
        body = restriction("teen", "RelatedPerson/parent-a-of-teen", row)
        self.put("Consent", id, **body)

    def seen(self, path: str, token: str | None = None) -> Any:
        answer = self.served.get(token or self.parent, path)
        if answer.status == 200 and "entry" not in answer.json and answer.json["resourceType"] != "Bundle":
            assert validate.check(answer.json["resourceType"], jsontext.parse(answer.body)) == (), answer.json
        return answer.json if answer.status == 200 else answer.status


@pytest.fixture(params=["memory", "sqlite"])
def record(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Record]:
    served = seeded("memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    yield Record(served)
    served.close()


def test_restricted_result_takes_the_conclusion_along(record: Record) -> None:
    record.result("r1")
    record.result("r2")
    record.report("rep", "r1", "r2")
    search, since = "DiagnosticReport?conclusion=D50.9", "DiagnosticReport?_lastUpdated=gt2020-01-01&_count=100"
    assert "conclusion" in record.seen("DiagnosticReport/rep") and record.served.get(record.parent, search).ids() == ["rep"]
    assert record.served.get(record.parent, "DiagnosticReport?conclusion:not=D50.9").ids().count("rep") == 0
    before = record.served.get(record.parent, "DiagnosticReport/rep")
    record.restrict("no-r1", "Observation/r1")
    after = record.seen("DiagnosticReport/rep")
    assert record.seen("Observation/r1") == 404 and "conclusion" not in after and "conclusionCode" not in after
    assert after["result"] == [{"reference": "Observation/r2"}] and after["meta"]["versionId"] == "1"
    assert record.served.get(record.parent, search).ids() == []
    assert "rep" in record.served.get(record.parent, "DiagnosticReport?conclusion:not=D50.9").ids()
    assert "rep" in record.served.get(record.parent, since).ids()
    assert "conclusion" in record.seen("DiagnosticReport/rep", record.feed)
    changed = record.served.request(record.parent, "GET", "DiagnosticReport/rep", headers={"If-None-Match": before.headers["etag"]})
    assert changed.status == 200 and changed.headers["etag"] != before.headers["etag"]
    same = record.served.request(record.parent, "GET", "DiagnosticReport/rep", headers={"If-None-Match": changed.headers["etag"]})
    assert same.status == 304 and same.headers["etag"] == changed.headers["etag"]


def test_what_a_restricted_row_hid_does_not_come_back_with_its_deletion(record: Record) -> None:
    record.result("r1")
    record.result("r2")
    record.report("rep", "r1", "r2")
    before = record.served.get(record.parent, "DiagnosticReport/rep").body
    assert record.served.request(record.feed, "DELETE", "Observation/r2").status == 204
    assert record.served.get(record.parent, "DiagnosticReport/rep").body == before
    record.restrict("no-r1", "Observation/r1")
    hidden = record.served.get(record.parent, "DiagnosticReport/rep").body
    assert record.served.request(record.feed, "DELETE", "Observation/r1").status == 204
    assert record.served.get(record.parent, "DiagnosticReport/rep").body == hidden != before


def test_row_that_means_nothing_without_a_restricted_row_is_withheld(record: Record) -> None:
    routine = coded("http://terminology.hl7.org/CodeSystem/v2-0276", "ROUTINE")
    record.put("Appointment", "a1", status="booked", appointmentType=routine, participant=[{"actor": TEEN, "status": "accepted"}],
               start="2026-12-01T10:00:00Z", end="2026-12-01T10:30:00Z")  # fmt: skip
    record.put("AppointmentResponse", "ar1", appointment={"reference": "Appointment/a1"}, actor=TEEN, participantStatus="accepted",
               start="2026-12-01T10:00:00Z", end="2026-12-01T10:30:00Z")  # fmt: skip
    record.put("Provenance", "p1", target=[{"reference": "AppointmentResponse/ar1"}], recorded="2026-11-20T00:00:00Z",
               agent=[{"who": {"reference": "RelatedPerson/parent-a-of-teen"}}])  # fmt: skip
    assert record.seen("AppointmentResponse/ar1")["start"] and record.seen("Provenance/p1")["target"]
    record.restrict("no-a1", "Appointment/a1")
    absent = record.served.get(record.parent, "AppointmentResponse?patient=teen").ids()
    assert [record.seen(path) for path in ("Appointment/a1", "AppointmentResponse/ar1", "Provenance/p1")] == [404] * 3 and absent == []
    assert record.seen("AppointmentResponse/ar1", record.feed)["start"]


def test_total_of_a_bill_goes_with_a_hidden_line(record: Record) -> None:
    for id, code in (("c1", "718-7"), ("c2", "20447-9")):
        record.put("ChargeItem", id, status="billed", code=coded(LOINC, code), subject=TEEN)
    lines = [{"chargeItemReference": {"reference": f"ChargeItem/{id}"}, "priceComponent": [{"type": "base"}]} for id in ("c1", "c2")]
    record.put("Invoice", "i1", status="issued", subject=TEEN, lineItem=lines, totalNet={"value": 311.5, "currency": "USD"})
    record.put("Invoice", "i2", status="issued", subject=TEEN, lineItem=lines[:1], totalNet={"value": 311.5, "currency": "USD"})
    assert record.seen("ChargeItem/c2") == 404
    bill = record.seen("Invoice/i1")
    assert bill["lineItem"] == lines[:1] and "totalNet" not in bill and record.seen("Invoice/i2")["totalNet"]["value"] == 311.5
    assert record.served.get(record.parent, "Invoice?totalnet=gt300").ids() == ["i2"]


def test_unreleased_result_takes_texts_along_until_its_release(record: Record) -> None:
    release = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2026-12-01T00:00:00Z"}]
    subject = {"reference": "Patient/adult"}
    record.result("k", "2823-3", subject=subject, extension=release)
    section = [{"title": "Results", "text": DIV, "entry": [{"reference": "Observation/k"}]}, {"title": "Plan", "text": DIV}]
    record.put("Composition", "c", status="final", type=coded(LOINC, "11503-0"), subject=subject, date="2026-11-20", title="Summary",
               author=[{"display": "Dr Roe"}], text=DIV, section=section)  # fmt: skip
    adult = record.served.app_token("adult", "adult")
    held = record.seen("Composition/c", adult)
    assert [part["title"] for part in held["section"]] == ["Plan"] and "text" not in held
    record.served.at("2026-12-02T00:00:00Z")
    released = record.seen("Composition/c", record.served.app_token("adult", "adult"))
    assert len(released["section"]) == 2 and "text" in released


def test_hidden_change_makes_no_version_and_a_visible_one_does(record: Record) -> None:
    record.result("r1")
    record.result("r2", "20447-9")
    record.report("rep", "r1", "r2")
    before = record.served.get(record.parent, "DiagnosticReport/rep")
    record.report("rep", "r1", "r2", presentedForm=[{"title": "hidden from the parent"}])
    after = record.served.get(record.parent, "DiagnosticReport/rep")
    assert (after.body, after.headers["etag"]) == (before.body, before.headers["etag"])
    record.report("rep", "r1", "r2", issued="2026-11-20T00:00:00Z")
    assert record.seen("DiagnosticReport/rep")["meta"]["versionId"] == "2"


def test_update_is_accepted_with_the_etag_and_with_the_version_number(record: Record) -> None:
    clinician = record.served.token("demo-public", "user/*.cruds", "clinician", "teen")
    record.result("r1")
    body = record.seen("Observation/r1", clinician)
    etag = record.served.get(clinician, "Observation/r1").headers["etag"]
    assert etag.startswith('W/"1-') and record.served.get(record.feed, "Observation/r1").headers["etag"] == 'W/"1"'
    for number, (tag, status) in enumerate(
        ((etag, 200), (etag, 412), ('W/"99", W/"2"', 200), ("*", 200), ('W/"4-0123456789abcdef"', 412), ("4", 200))
    ):
        body["issued"] = f"2026-11-20T00:00:0{number}Z"
        answer = record.served.request(clinician, "PUT", "Observation/r1", body=body, headers={"If-Match": tag})
        assert answer.status == status, (tag, answer.body)
    entry = record.seen("Observation/r1/_history", clinician)["entry"][0]
    assert entry["response"]["etag"] == record.served.get(clinician, "Observation/r1").headers["etag"]


def test_if_none_match_with_a_star_asks_for_a_new_row(record: Record) -> None:
    record.result("r1")
    body, new = record.seen("Observation/r1", record.feed), {"If-None-Match": "*"}
    assert record.served.request(record.feed, "PUT", "Observation/r1", body=body, headers=new).status == 412
    assert record.served.request(record.feed, "PUT", "Observation/r9", body={**body, "id": "r9"}, headers=new).status == 201
