"""$validate (http://hl7.org/fhir/R4/resource-operations.html#validate): the verdict of a write, without a write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served, store_url

LOINC = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
PROFILE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


def observation(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": LOINC, "subject": {"reference": "Patient/adult"}, **more}


def parameters(resource: Any = None, **more: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [{"name": name, "valueUri" if name == "profile" else "valueCode": text} for name, text in more.items()]
    found += [{"name": "resource", "resource": resource}] if resource else []
    return {"resourceType": "Parameters", "parameter": found}


def issues(served: Served, path: str, body: Any, token: str = "") -> list[tuple[str, str]]:
    """Severity and code of each issue."""
    answer = served.request(token or served.token(), "POST", path, body=body)
    assert (answer.status, answer.json["resourceType"]) == (200, "OperationOutcome"), answer.body
    return [(issue["severity"], issue["code"]) for issue in answer.json["issue"]]


FINE = [("information", "informational")]


def test_verdict_is_that_of_a_write(served: Served) -> None:
    """Each resource that a create refuses gets the same issues; a valid one gets none; nothing is stored."""
    token = served.token()
    count = served.get(token, "Observation?_summary=count").json["total"]
    assert issues(served, "Observation/$validate", observation()) == FINE
    defects: tuple[Any, ...] = (
        observation(status="no-code"), observation(colour="red"), observation(code={}), {"resourceType": "Observation"},
        observation(component=[{"valueString": "x"}]), observation(valueString="a", valueInteger=1), {"resourceType": "Patient"},
        observation(referenceRange=[{}]), observation(subject={"reference": "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-000000000001"}), b"{", b"[]",
    )  # fmt: skip
    for defect in defects:
        refused = served.request(token, "POST", "Observation", body=defect)
        answer = served.request(token, "POST", "Observation/$validate", body=defect)
        assert (refused.status, answer.status) == (400, 200) and answer.json["issue"] == refused.json["issue"], defect
        if isinstance(defect, dict):
            assert served.request(token, "POST", "Observation/$validate", body=parameters(defect)).json == answer.json
    assert served.get(token, "Observation?_summary=count").json["total"] == count


def test_large_resource_is_validated_like_a_small_one(served: Served) -> None:
    notes = [{"text": "x" * 50} for _ in range(3000)]
    assert issues(served, "Observation/$validate", observation(note=notes)) == FINE
    assert issues(served, "Observation/$validate", parameters(observation(note=[*notes, {"colour": "red"}])))[0][0] == "error"
    too_large = observation(note=[{"text": "x" * 9_000_000}])
    assert served.request(served.token(), "POST", "Observation/$validate", body=too_large).status == 413


@pytest.mark.parametrize("profile", [PROFILE, "https://unknown.example/StructureDefinition/x|1.0"])
def test_unknown_profile_is_said(served: Served, profile: str) -> None:
    assert issues(served, "Patient/$validate", parameters({"resourceType": "Patient"}, profile=profile)) == [("error", "not-supported")]
    claimed = {"resourceType": "Patient", "meta": {"profile": [profile]}}
    assert issues(served, "Patient/$validate", claimed) == [("warning", "not-supported"), *FINE]
    assert issues(served, "Patient/$validate", parameters(claimed, profile=profile)) == [("error", "not-supported")]


@pytest.mark.parametrize(
    "body",
    [
        b"", parameters(mode="create"), parameters({"resourceType": "Patient"}, mode="colour"),
        parameters({"resourceType": "Patient"}, x="y"),
        {"resourceType": "Parameters"}, {"resourceType": "Parameters", "parameter": [{"name": "resource", "valueString": "x"}]},
        {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": {"resourceType": "Patient"}}] * 2},
        {"resourceType": "Parameters", "parameter": [{"resource": {"resourceType": "Patient"}}]},
    ],
)  # fmt: skip
def test_parameters_that_ask_nothing_are_refused(served: Served, body: Any) -> None:
    headers = {"content-type": "application/fhir+json"}
    assert served.request(served.token(), "POST", "Patient/$validate", body=body, headers=headers).status == 400


def test_mode_and_profile_may_be_in_the_url(served: Served) -> None:
    patient = {"resourceType": "Patient"}
    assert issues(served, f"Patient/$validate?profile={PROFILE}&_format=json", patient) == [("error", "not-supported")]
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    stranger = observation(id="stranger")
    assert issues(served, "Observation/$validate?mode=update", stranger, clinician)[0] == ("error", "not-found")
    for query in ("mode=colour", "profile=", "colour=red", "mode=create&mode=update", "resource=x", "mode="):
        assert served.request(served.token(), "POST", f"Patient/$validate?{query}", body=patient).status == 400
    twice = parameters(patient, mode="create")
    assert served.request(served.token(), "POST", "Patient/$validate?mode=create", body=twice).status == 400


def test_modes_say_what_the_caller_may_not_do(served: Served) -> None:
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    adult = served.app_token("adult", "adult")
    stored = served.request(served.token(), "POST", "Observation", body=observation()).json
    id = stored["id"]
    sent = {**observation(), "id": id}
    assert issues(served, f"Observation/{id}/$validate", parameters(sent, mode="update")) == FINE
    assert issues(served, f"Observation/{id}/$validate", parameters({**sent, "id": "other"}, mode="update")) == [("error", "value")]
    assert issues(served, "Observation/never/$validate", parameters({**sent, "id": "never"}, mode="update"), clinician)[0] == (
        "error",
        "not-found",
    )
    assert issues(served, "Observation/never/$validate", parameters({**sent, "id": "never"}, mode="update")) == FINE  # it may choose ids
    assert issues(served, f"Observation/{id}/$validate", parameters(mode="delete")) == FINE
    assert issues(served, f"Observation/{id}/$validate", parameters(mode="delete"), clinician) == [("error", "forbidden")]
    assert ("error", "forbidden") in issues(served, "Observation/$validate", parameters(observation(), mode="create"), adult)
    other = observation(subject={"reference": "Patient/teen"})
    assert ("error", "forbidden") in issues(served, "Observation/$validate", parameters(other, mode="create"), adult)
    assert issues(served, f"Observation/{id}/$validate", parameters(mode="profile")) == FINE
    assert served.request(clinician, "POST", "Observation/never/$validate", body=parameters(mode="profile")).status == 404
    assert served.get(served.token(), f"Observation/{id}").json == stored


def test_reference_to_a_hidden_row_is_like_one_to_an_absent_one(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    told = []
    for target in ("teen-hiv-screen", "never-existed"):
        row = observation(subject={"reference": "Patient/teen"}, derivedFrom=[{"reference": f"Observation/{target}"}])
        answer = served.request(parent, "POST", "Observation/$validate", body=row)
        told.append(answer.body.replace(target.encode(), b"x"))
        assert answer.json["issue"][0]["expression"] == ["Observation.derivedFrom[0].reference"]
    assert told[0] == told[1] and b"does not resolve" in told[0]
    assert (
        issues(served, "Observation/$validate", observation(derivedFrom=[{"reference": "Observation/teen-hiv-screen"}])) == FINE
    )  # the feed
    hidden, absent = (
        served.request(parent, "POST", f"Observation/{id}/$validate", body=parameters(mode="profile"))
        for id in ("teen-hiv-screen", "never")
    )
    assert hidden.status == absent.status == 404


@pytest.mark.parametrize(("scope", "status"), [("c", 200), ("r", 200), ("s", 200), ("", 403)])
def test_any_scope_on_the_type_is_enough(served: Served, scope: str, status: int) -> None:
    token = served.token(scope=f"system/Observation.{scope}" if scope else "system/Patient.cruds")
    body = observation(subject={"display": "somebody"})
    assert served.request(token, "POST", "Observation/$validate", body=body).status == status
    assert served.request(None, "POST", "Observation/$validate", body=b"{").status == 401


def test_batch_takes_it_and_a_transaction_does_not(served: Served) -> None:
    entries = [
        {"fullUrl": "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-0000000000d1", "resource": body, "request": {"method": "POST", "url": url}}
        for body, url in ((observation(), "Observation/$validate"),)
    ]
    entries.append({"resource": parameters({"resourceType": "Patient"}), "request": {"method": "POST", "url": "Patient/$validate"}})
    answer = served.request(served.token(), "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert [one["response"]["status"] for one in answer.json["entry"]] == ["200", "200"]
    assert all(one["resource"]["issue"][0]["severity"] == "information" for one in answer.json["entry"])
    refused = served.request(served.token(), "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert refused.status == 400


def test_capability_statement_names_it(served: Served) -> None:
    resource = served.get(None, "metadata").json["rest"][0]["resource"][0]
    definition = "http://hl7.org/fhir/OperationDefinition/Resource-validate"
    assert {"name": "validate", "definition": definition} in resource["operation"]


def test_parameters_can_be_validated_themselves(served: Served) -> None:
    assert issues(served, "Parameters/$validate", {"resourceType": "Parameters", "parameter": [{"name": "x", "valueString": "y"}]}) == FINE
    inner = {"resourceType": "Parameters", "parameter": [{"valueString": "y"}]}
    assert json.dumps(issues(served, "Parameters/$validate", parameters(inner))).count("error") == 1
