"""Writes by callers who do not see everything: they neither delete hidden data nor remove labels."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served import Served


@pytest.fixture(scope="module")
def clinician(served: Served) -> str:
    return served.token("demo-public", "user/*.cruds", "clinician")


def reading(**more: Any) -> dict[str, Any]:
    """A home reading, which a patient may report."""
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    vital = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}
    return lab(code=code, category=[vital], **more)


def lab(**more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": {"reference": "Patient/adult"}, **more}


def test_clinician_update_keeps_existing_security_labels(served: Served, feed: str, clinician: str) -> None:
    label = [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PHY"}]
    id = served.request(feed, "POST", "Observation", body=lab(meta={"security": label})).json["id"]
    assert served.request(clinician, "PUT", f"Observation/{id}", body=lab(id=id, status="amended")).status == 200
    assert served.get(feed, f"Observation/{id}").json["meta"]["security"] == label
    assert served.get(served.app_token("adult", "adult"), f"Observation/{id}").status == 404


def test_clinician_update_preserves_hidden_elements(served: Served, feed: str, clinician: str) -> None:
    visit = {**served.get(feed, "Encounter/adult-annual-visit").json, "account": [{"reference": "Account/adult-account"}]}
    assert served.request(feed, "PUT", "Encounter/adult-annual-visit", body=visit).status == 200
    shown = served.get(clinician, "Encounter/adult-annual-visit").json
    assert "account" not in shown  # clinicians do not see billing references
    assert served.request(clinician, "PUT", "Encounter/adult-annual-visit", body={**shown, "priority": {"text": "routine"}}).status == 200
    stored = served.get(feed, "Encounter/adult-annual-visit").json
    assert stored["account"] == visit["account"] and stored["priority"] == {"text": "routine"}


@pytest.mark.parametrize(("user", "patient"), [("parent-a", "teen"), ("parent-a", "child"), ("adult", "adult"), ("proxy-full", "adult")])
def test_patients_and_proxies_cannot_update_or_delete(served: Served, user: str, patient: str) -> None:
    token = served.app_token(user, patient)
    mine = served.all_ids(token, "Observation?_count=100")[0]
    seen = served.get(token, f"Observation/{mine}").json
    answers = {
        (
            method,
            served.request(token, method, f"Observation/{id}", body={**seen, "id": id} if method == "PUT" else None).body.replace(
                id.encode(), b""
            ),
        )
        for method in ("PUT", "DELETE")
        for id in (mine, "never-existed", f"{patient}-hiv-screen")
    }
    assert len(answers) == 2  # one refusal per method, equal for every row
    assert served.get(token, f"Observation/{mine}").json == seen


def test_patient_write_to_another_record_returns_403(served: Served) -> None:
    token = served.app_token("adult", "adult")
    assert served.request(token, "POST", "Observation", body=reading()).status == 201
    for other in ({"reference": "Patient/teen"}, {"reference": "Patient/never-existed"}, {"display": "me"}):
        assert served.request(token, "POST", "Observation", body=reading(subject=other)).status == 403


def test_parent_message_is_found_by_sender_not_by_other_parent(served: Served, feed: str) -> None:
    token = served.app_token("parent-a", "teen")
    message = {
        "resourceType": "Communication",
        "status": "completed",
        "subject": {"reference": "Patient/teen"},
        "sender": {"reference": "RelatedPerson/parent-a-of-teen"},
        "payload": [{"contentString": "Hello"}],
    }
    created = served.request(token, "POST", "Communication", body=message)
    assert created.status == 201
    assert created.json["id"] in served.all_ids(token, "Communication?_count=100")
    assert created.json["id"] not in served.all_ids(served.app_token("parent-b", "teen"), "Communication?_count=100")


def test_create_only_scope_allows_create_and_denies_read(served: Served) -> None:
    token = served.app_token("adult", "adult", "patient/Observation.c")
    assert served.request(token, "POST", "Observation", body=reading()).status == 201
    assert served.get(token, "Patient/adult").status == 403
