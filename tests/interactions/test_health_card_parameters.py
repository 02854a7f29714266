"""The parameters of ``$health-cards-issue``, and the scopes that it needs.

http://hl7.org/fhir/uv/smart-health-cards-and-links/OperationDefinition/patient-i-health-cards-issue
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interactions.health_card_verifier import resources
from tests.interactions.hostile_operations import VALUES
from tests.interactions.test_health_cards import ALL, COVID, FLU, OPERATION, all_vaccines, issue, payloads
from tests.seeded import seeded
from tests.served import Served


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """A server for tests that write nothing."""
    server = seeded()
    yield server
    server.close()


@pytest.mark.parametrize(("scope", "status"), [
    ("patient/Patient.r patient/Immunization.s", 200), ("patient/Patient.r patient/Immunization.r", 200),
    ("patient/Patient.r", 403), ("patient/Immunization.rs", 403), ("patient/Patient.s patient/Immunization.rs", 403),
])  # fmt: skip
def test_a_card_needs_scopes_for_the_patient_and_the_vaccinations(shared: Served, scope: str, status: int) -> None:
    assert issue(shared, "adult", "adult", scope=scope).status == status


def test_none_that_fits_is_an_answer_without_cards(shared: Served) -> None:
    for query in (
        "?credentialType=Observation", "?credentialType=Immunization&credentialType=Observation", f"{ALL}&_since=2026-11-20",
        f"{ALL}&credentialValueSet=https://terminology.smarthealth.cards/ValueSet/immunization-orthopoxvirus-all",
        f"{ALL}&credentialValueSet=https://terminology.smarthealth.cards/ValueSet/immunization-all-snomed",
    ):  # fmt: skip
        answer = issue(shared, "adult", "adult", query)
        assert answer.status == 200 and answer.json == {"resourceType": "Parameters"}, query


@pytest.mark.parametrize(
    "type",
    [
        "Immunization", "%23immunization", "https://smarthealth.cards%23immunization", "https://smarthealth.cards%23health-card",
        "http://hl7.org/fhir/StructureDefinition/Immunization", "Immunization&credentialType=Patient",
    ],
)  # fmt: skip
def test_types_of_credentials_have_several_spellings(shared: Served, type: str) -> None:
    assert issue(shared, "adult", "adult", f"?credentialType={type}").body == issue(shared, "adult", "adult").body


def test_parameters_narrow_the_cards(shared: Served) -> None:
    covid = f"{ALL}&credentialValueSet=https://terminology.smarthealth.cards/ValueSet/immunization-covid-"
    for system in ("all", "cvx"):
        assert all_vaccines(shared, issue(shared, "adult", "adult", covid + system)) == {COVID, "309"}
    since = all_vaccines(shared, issue(shared, "adult", "adult", f"{ALL}&_since=2024"))
    assert since == {"309", FLU}, "the vaccinations since then"
    for claim, element in (("Patient.name", "name"), ("Patient.birthDate", "birthDate")):
        [payload] = payloads(shared, issue(shared, "adult", "adult", f"{covid}all&includeIdentityClaim={claim}"))
        assert set(resources(payload)[0]) == {"resourceType", element}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "credentialType"),
        ("?credentialType=Vaccine", "Vaccine"),
        ("?credentialType=%23covid", "#covid"),
        (f"{ALL}&_since=soon", "_since"),
        (f"{ALL}&_since=2024,2020", "_since"),
        (f"{ALL}&includeIdentityClaim=Patient.telecom", "Patient.name"),
        (f"{ALL}&includeIdentityClaim=name", "Patient.name"),
        (f"{ALL}&credentialValueSet=https://x.example/vs", "x.example"),
        (f"{ALL}&since=2024", "since"),
    ],
)
def test_a_parameter_that_cannot_be_followed_is_refused_by_name(shared: Served, query: str, named: str) -> None:
    answer = issue(shared, "adult", "adult", query)
    assert answer.status == 400 and named in answer.body.decode(), answer.json


def test_a_wallet_asks_by_post(shared: Served) -> None:
    body = {"resourceType": "Parameters", "parameter": [{"name": "credentialType", "valueUri": "Immunization"}]}
    token = shared.app_token("adult", "adult", "patient/*.rs")
    answer = shared.request(token, "POST", f"Patient/adult/{OPERATION}", body=body)
    assert answer.status == 200 and answer.body == issue(shared, "adult", "adult").body


def test_a_record_with_too_many_vaccinations_says_how_to_narrow_the_request(shared: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from fhir_server.interactions import health_cards

    monkeypatch.setattr(health_cards, "_MOST", 2)
    answer = issue(shared, "adult", "adult")
    assert answer.status == 503 and "_since" in answer.body.decode()
    assert issue(shared, "adult", "adult", f"{ALL}&_since=2025").status == 200


@pytest.mark.parametrize("name", ["credentialType", "credentialValueSet", "includeIdentityClaim", "_since"])
def test_a_parameter_with_a_value_of_another_kind_is_refused(shared: Served, name: str) -> None:
    token = shared.app_token("adult", "adult", "patient/*.rs")
    for kind, value in VALUES:
        body = {
            "resourceType": "Parameters",
            "parameter": [{"name": "credentialType", "valueUri": "Immunization"}, {"name": name, kind: value}],
        }
        answer = shared.request(token, "POST", f"Patient/adult/{OPERATION}", body=body)
        assert answer.status in (400, 422) and answer.json["issue"][0]["diagnostics"], (kind, value, answer.status)
