"""However a feed names a sensitive row, what refers to it is hidden: spelling, containment, criteria, roles, updates without labels."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.resources import validate
from tests.served import Answer, Served

Json = dict[str, Any]
TEEN, ADULT = {"reference": "Patient/teen"}, {"reference": "Patient/adult"}
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SERVICE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/service-type", "code": "124"}]}
CLINIC, OTHER_CLINIC = "Location/mental-health-clinic", "Location/family-medicine-clinic"
VISIT, OTHER_VISIT = "Encounter/teen-mh-visit", "Encounter/teen-well-visit"
ROLE = "PractitionerRole/dr-okafor-mental-health"
# How feeds misspell a literal reference; none of them is one in R4.
SPELLINGS = (
    "/{0}", "{0}/", "./{0}", " {0}", "{0} ", "fhir/{0}", "//{0}", "{1}//{2}", "{3}/{2}", "{0}/_history", "{0}/_history/", "../{0}",
    "{1}/{2}/", "%20{0}", "\\t{0}", "{0}#", "{base}//{0}", "{base}/{0}/", "{base}/./{0}",
)  # fmt: skip


def heart_rate(**more: Any) -> Json:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": TEEN, **more}


def visit(place: str, **more: Any) -> Json:
    return {
        "resourceType": "Encounter", "status": "finished", "class": {"system": ACT, "code": "AMB"}, "subject": TEEN,
        "serviceType": SERVICE, "location": [{"location": {"reference": place}}], **more,
    }  # fmt: skip


def appointment(place: str) -> Json:
    actors = [TEEN, {"reference": place}]
    return {
        "resourceType": "Appointment", "status": "booked", "start": "2030-01-01T10:00:00Z", "end": "2030-01-01T10:30:00Z",
        "serviceType": [SERVICE], "participant": [{"actor": actor, "status": "accepted"} for actor in actors],
    }  # fmt: skip


def order(place: str) -> Json:
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    return {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": code, "subject": TEEN,
        "locationReference": [{"reference": place}],
    }  # fmt: skip


# Name -> (row that refers to its argument, hidden target, visible target).
HEIRS = {
    "result of a visit": (lambda name: heart_rate(encounter={"reference": name}), VISIT, OTHER_VISIT),
    "visit at a clinic": (visit, CLINIC, OTHER_CLINIC),
    "appointment at a clinic": (appointment, CLINIC, OTHER_CLINIC),
    "order for a clinic": (order, CLINIC, OTHER_CLINIC),
    "part of a visit": (lambda name: visit(OTHER_CLINIC, partOf={"reference": name}), VISIT, OTHER_VISIT),
}


@pytest.fixture(scope="module")
def parent(served: Served) -> str:
    return served.app_token("parent-a", "teen")


def put(served: Served, feed: str, row: Json, id: str) -> Answer:
    return served.request(feed, "PUT", f"{row['resourceType']}/{id}", body={**row, "id": id})


def spelled(spelling: str, name: str, base: str) -> str:
    type, _, id = name.partition("/")
    return spelling.format(name, type, id, type.lower(), base=base)


@pytest.mark.parametrize("heir", HEIRS)
def test_misspelled_reference_is_refused_or_read_as_meant(heir: str, served: Served, feed: str, parent: str) -> None:
    make, hidden, shown = HEIRS[heir]
    type = make(shown)["resourceType"]
    assert put(served, feed, make(shown), "spelled-right").status in (200, 201)
    assert served.get(parent, f"{type}/spelled-right").status == 200
    assert put(served, feed, make(hidden), "spelled-hidden").status in (200, 201)
    assert served.get(parent, f"{type}/spelled-hidden").status == 404
    for number, spelling in enumerate(SPELLINGS):
        answer = put(served, feed, make(spelled(spelling, hidden, served.settings.base)), f"spelled-{number}")
        assert answer.status in (200, 201, 400, 422), spelling
        assert served.get(parent, f"{type}/spelled-{number}").status == 404, spelling


def test_misspelled_result_of_a_report_is_not_shown(served: Served, feed: str, parent: str) -> None:
    report = {"resourceType": "DiagnosticReport", "status": "final", "subject": TEEN, "conclusion": "as expected"}
    report["code"] = {"coding": [{"system": "http://loinc.org", "code": "58410-2"}]}
    for number, spelling in enumerate(("{0}", *SPELLINGS)):
        name = spelled(spelling, "Observation/teen-hiv-screen", served.settings.base)
        put(served, feed, report | {"result": [{"reference": name}]}, f"misspelled-{number}")
        assert b"teen-hiv-screen" not in served.get(parent, f"DiagnosticReport/misspelled-{number}").body, spelling
    assert served.get(parent, "DiagnosticReport/misspelled-0").status == 200


@pytest.mark.parametrize("place", [CLINIC, OTHER_CLINIC])
def test_contained_visit_counts_like_a_stored_one(place: str, served: Served, feed: str, parent: str) -> None:
    inner = {**visit(place), "id": "e"}
    for number, (row, element) in enumerate(((heart_rate(), "encounter"), (order(OTHER_CLINIC), "encounter"))):
        outer = copy.deepcopy(row) | {"contained": [inner], element: {"reference": "#e"}}
        assert put(served, feed, outer, f"containing-{number}").status in (200, 201)
        seen = served.get(parent, f"{row['resourceType']}/containing-{number}")
        assert seen.status == (404 if place == CLINIC else 200)


def in_a_role() -> dict[str, Json]:
    role = {"reference": ROLE}
    drug = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "435"}]}
    prescription = {"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": TEEN}
    team = {"resourceType": "CareTeam", "status": "active", "subject": TEEN}
    return {
        "requester": prescription | {"medicationCodeableConcept": drug, "requester": role},
        "performer": heart_rate(performer=[role]),
        "participant": visit(OTHER_CLINIC, participant=[{"individual": role}]),
        "member": team | {"participant": [{"member": role}]},
        "performer of an order": order(OTHER_CLINIC) | {"performer": [role]},
        "actor": appointment(ROLE),
    }


@pytest.mark.parametrize("part", in_a_role())
def test_role_at_a_sensitive_department_is_not_named(part: str, served: Served, feed: str, parent: str) -> None:
    row = in_a_role()[part]
    assert put(served, feed, row, "in-a-role").status in (200, 201)
    assert b"mental-health" not in served.get(parent, f"{row['resourceType']}/in-a-role").body


@pytest.mark.parametrize("make", [visit, appointment, order])
def test_department_named_by_criteria_counts_like_its_id(make: Any, served: Served, feed: str, parent: str) -> None:
    clinic = {"resourceType": "Location", "identifier": [{"system": "urn:x:site", "value": "7"}], "name": "Site seven"}
    clinic["type"] = [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "PSY"}]}]
    assert put(served, feed, clinic, "site-seven").status in (200, 201)
    row = make("Location?identifier=urn:x:site|7")
    entry = {"resource": row, "request": {"method": "POST", "url": row["resourceType"]}}
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert answer.status == 200, answer.body
    stored = answer.json["entry"][0]["response"]["location"].partition("/_history")[0].split("/")[-2:]
    assert b"?identifier" not in served.get(feed, "/".join(stored)).body
    assert served.get(parent, "/".join(stored)).status == 404
    plain = put(served, feed, row, "by-criteria")
    assert plain.status in (400, 422) and served.get(parent, f"{row['resourceType']}/by-criteria").status == 404


@pytest.mark.parametrize("code", ["PHY", "TBOO", "NOPAT"])
def test_held_back_row_stays_hidden_after_updates(code: str, served: Served, feed: str) -> None:
    adult = served.app_token("adult", "adult")
    row = heart_rate() | {"subject": ADULT}
    assert put(served, feed, row, f"shown-{code}").status in (200, 201)
    assert served.get(adult, f"Observation/shown-{code}").status == 200
    held = row | {"meta": {"security": [{"system": ACT, "code": code}]}}
    assert put(served, feed, held, f"held-{code}").status in (200, 201)
    for later in (row | {"status": "amended"}, row, None, row):
        if later is None:
            assert served.request(feed, "DELETE", f"Observation/held-{code}").status == 204
        else:
            assert put(served, feed, later, f"held-{code}").status in (200, 201)
        assert served.get(adult, f"Observation/held-{code}").status == 404


def test_row_without_a_required_element_is_withheld_or_valid(served: Served, feed: str) -> None:
    adult = served.app_token("adult", "adult")
    file = {"resourceType": "Binary", "contentType": "text/plain", "data": "aGVsbG8=", "securityContext": TEEN}
    assert put(served, feed, file, "of-the-teen").status in (200, 201)
    document = {"resourceType": "DocumentReference", "status": "current", "subject": ADULT}
    rows = [
        document | {"content": [{"attachment": {"url": "Binary/of-the-teen"}}]},
        {"resourceType": "Provenance", "target": [ADULT], "recorded": "2026-01-01T00:00:00Z", "agent": [{"who": TEEN}]},
        {"resourceType": "AppointmentResponse", "appointment": {"reference": "Appointment/held-back"}, "participantStatus": "accepted",
         "actor": ADULT},
    ]  # fmt: skip
    held = appointment(OTHER_CLINIC) | {"meta": {"security": [{"system": ACT, "code": "NOPAT"}]}}
    assert put(served, feed, held, "held-back").status in (200, 201)
    for row in rows:
        type = row["resourceType"]
        assert put(served, feed, row, "cut-away").status in (200, 201)
        answer = served.get(adult, f"{type}/cut-away")
        assert answer.status == 404 or validate.check(type, jsontext.parse(answer.body)) == (), answer.body
    assert put(served, feed, document | {"content": [{"attachment": {"title": "A paper"}}]}, "whole").status in (200, 201)
    assert served.get(adult, "DocumentReference/whole").status == 200
