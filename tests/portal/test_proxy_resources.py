"""Resources of a proxy grant: the exact JSON that is written, and the names that are shown."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.portal.proxy_resources import SharingRequest, build_consent, build_related_person, describe_person
from tests.portal.environment import START

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
IG = "https://fhir-server.example/ig"
PATIENT = {"reference": "Patient/adult"}
REQUEST = SharingRequest("Sam Standard", "SIB", "full", date(2027, 1, 31))


def coded(system: str, code: str, display: str = "") -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def test_related_person_is_written_as_expected() -> None:
    expected = {"resourceType": "RelatedPerson", "active": True, "patient": PATIENT}
    expected |= {"relationship": [coded(f"{TERMINOLOGY}/v3-RoleCode", "SIB", "sibling")], "name": [{"text": "Sam Standard"}]}
    assert build_related_person("adult", REQUEST).value == expected
    assert "relationship" not in build_related_person("adult", SharingRequest("Sam Standard", "", "full")).value


@pytest.mark.parametrize("until", [None, date(2027, 1, 31)])
def test_consent_is_written_as_expected(until: date | None) -> None:
    request = SharingRequest("Sam Standard", "SIB", "full", until)
    draft = build_consent("adult", "sam", request, now=START, today=date(2026, 11, 21), policy="optum", authority="https://records.example")
    grantee = {"role": coded(f"{TERMINOLOGY}/v3-RoleCode", "GRANTEE", "grantee"), "reference": {"reference": "RelatedPerson/sam"}}
    period = {"start": "2026-11-21"} | ({"end": "2027-01-31"} if until else {})
    expected = {
        "resourceType": "Consent",
        "meta": {"profile": [f"{IG}/StructureDefinition/proxy-consent"]},
        "status": "active",
        "scope": coded(f"{TERMINOLOGY}/consentscope", "patient-privacy", "Privacy Consent"),
        "category": [
            coded("http://loinc.org", "59284-0", "Consent Document"),
            coded(f"{IG}/CodeSystem/consent-kind", "proxy-adult"),
            coded(f"{IG}/CodeSystem/proxy-level", "full"),
        ],
        "patient": PATIENT,
        "dateTime": "2026-11-21T15:00:00Z",
        "performer": [PATIENT],
        "policy": [{"authority": "https://records.example", "uri": f"{IG}/policy/optum"}],
        "provision": {"provision": [{"type": "permit", "period": period, "actor": [grantee]}]},
    }
    assert draft.value == expected
    assert json.loads(jsontext.join_members(draft.parts)) == expected


@pytest.mark.parametrize(
    ("elements", "text"),
    [
        ({"name": [{"text": "Sam", "family": "Standard"}]}, "Sam"),
        ({"name": [{"given": ["Sam", "B."], "family": "Standard"}, {"text": "Sammy"}]}, "Sam B. Standard"),
        ({"name": [{"given": [None, "Sam"], "_given": [{"id": "a"}, None]}]}, "Sam"),
        ({"name": [{"text": "Sam"}], "relationship": [coded(f"{TERMINOLOGY}/v3-RoleCode", "FRND")]}, "Sam (friend)"),
        ({"name": [{"text": "Sam"}], "relationship": [coded(f"{TERMINOLOGY}/v3-RoleCode", "NCHILD")]}, "Sam"),
        ({"name": [{}]}, "Unnamed person"),
        ({}, "Unnamed person"),
        ({"name": [{"text": 5}]}, "Unnamed person"),
    ],
)
def test_related_person_is_described_by_name_and_relationship(elements: dict[str, Any], text: str) -> None:
    assert describe_person({"resourceType": "RelatedPerson", "id": "sam", "patient": PATIENT} | elements) == text
