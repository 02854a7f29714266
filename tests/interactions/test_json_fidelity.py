"""A resource is returned as it was sent, except for id and meta."""

from __future__ import annotations

import json

import pytest

from tests.served import Served

ODD = (
    b'{ "resourceType" : "Observation", "status":"final","code":{"text":"odd \\u00e9\\n \\"digits\\""},\n '
    b'"subject":{"reference":"Patient/adult"},'
    b'"effectiveDateTime":"2026-11-01T10:00:00.000+00:00","extension":[{"url":"http://nobody.example/known","valueDecimal":0.010}],'
    b'"valueQuantity":{"value":1.50,"unit":"mg"},"referenceRange":[{"low":{"value":-0.0},"high":{"value":1.0E+2}}]}'
)


def test_original_json_text_is_preserved(served: Served, feed: str) -> None:
    created = served.request(feed, "POST", "Observation", body=ODD)
    assert created.status == 201
    body = served.get(feed, f"Observation/{created.json['id']}").body
    for text in (
        b'"value":1.50',
        b'"value":-0.0',
        b'"value":1.0E+2',
        b"2026-11-01T10:00:00.000+00:00",
        b'"valueDecimal":0.010',
        b'"odd \\u00e9\\n \\"digits\\""',
    ):
        assert text in body


def test_update_preserves_json_text_of_other_members(served: Served, feed: str) -> None:
    created = served.request(feed, "POST", "Observation", body=ODD)
    changed = created.body.replace(b'"status":"final"', b'"status":"amended"')
    updated = served.request(feed, "PUT", f"Observation/{created.json['id']}", body=changed)
    assert updated.status == 200 and b'"value":1.50' in updated.body
    assert updated.json["meta"]["versionId"] == "2"


@pytest.mark.parametrize("elements", ["valueQuantity", "status,valueQuantity"])
def test_elements_subset_preserves_decimal_digits(served: Served, feed: str, elements: str) -> None:
    created = served.request(feed, "POST", "Observation", body=ODD)
    found = served.get(feed, f"Observation?_id={created.json['id']}&_elements={elements}")
    resource = found.json["entry"][0]["resource"]
    assert b'"value":1.50' in found.body
    assert "referenceRange" not in resource and {"status", "code"} <= set(resource)
    assert [tag["code"] for tag in resource["meta"]["tag"]] == ["SUBSETTED"]


def test_transaction_rewrites_references_but_not_identifiers(served: Served, feed: str) -> None:
    urn = "urn:uuid:7e1c0b0e-0c39-4b33-8b3f-111111111111"
    entries = [
        _entry("urn:uuid:2", {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": urn}}),
        _entry(urn, {"resourceType": "Patient", "identifier": [{"system": "urn:ietf:rfc:3986", "value": urn}]}),
    ]
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status == 200
    places = [entry["response"]["location"] for entry in answer.json["entry"]]
    observation = served.get(feed, places[0].partition("/_history")[0]).json
    patient = served.get(feed, places[1].partition("/_history")[0]).json
    assert observation["subject"]["reference"] == f"Patient/{patient['id']}"
    assert patient["identifier"][0]["value"] == urn


def _entry(url: str, resource: dict[str, object]) -> dict[str, object]:
    return {"fullUrl": url, "resource": json.loads(json.dumps(resource)), "request": {"method": "POST", "url": resource["resourceType"]}}
