"""A Bundle that is stored as one resource is complete in itself: its references lead to its entries, or to where it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served import Served

EHR, BASE = "http://ehr.example/fhir", "http://127.0.0.1:8000/fhir"
URN, ABSENT = "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-000000000001", "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-000000000009"
KINDS = ("document", "message", "collection", "searchset", "history", "batch-response", "transaction-response", "batch", "transaction")


def bundle(kind: str, reference: str, full_url: str = f"{EHR}/Observation/1") -> dict[str, Any]:
    """A Bundle of this type whose second entry has the reference; its third is a Patient."""
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    rows: list[dict[str, Any]] = [
        {"resourceType": "Observation", "id": "1", "status": "final", "code": code, "subject": {"reference": reference}},
        {"resourceType": "Patient", "id": "inside"},
    ]
    entries = [{"fullUrl": full_url, "resource": rows[0]}, {"fullUrl": f"{EHR}/Patient/inside", "resource": rows[1]}]
    entries.append({"fullUrl": f"{BASE}/Patient/own-inside", "resource": {"resourceType": "Patient", "id": "own-inside"}})
    entries.append({"fullUrl": URN, "resource": {"resourceType": "Patient"}})
    head: dict[str, Any] = {"resourceType": "Bundle", "type": kind}
    if kind == "document":
        first = {
            "resourceType": "Composition", "id": "c", "status": "final", "type": code, "title": "x", "date": "2026-11-20",
            "author": [{"display": "x"}],
        }  # fmt: skip
        head |= {"identifier": {"system": "urn:x", "value": "1"}, "timestamp": "2026-11-20T00:00:00Z"}
        entries.insert(0, {"fullUrl": f"{EHR}/Composition/c", "resource": first})
    if kind == "message":
        header = {"resourceType": "MessageHeader", "id": "m", "eventUri": "http://x.example/e", "source": {"endpoint": "http://x.example"}}
        entries.insert(0, {"fullUrl": f"{EHR}/MessageHeader/m", "resource": header})
    for entry in entries:
        if kind in ("batch", "transaction", "history"):
            entry["request"] = {"method": "POST", "url": entry["resource"]["resourceType"]}
        if kind.endswith("-response") or kind == "history":
            entry["response"] = {"status": "201"}
        if kind == "searchset":
            entry["search"] = {"mode": "match"}
    return head | {"entry": entries}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "reference", ["Patient/inside", "Patient/outside", f"{EHR}/Patient/inside", f"{EHR}/Patient/outside", URN, ABSENT, "Patient/adult"]
)
def test_bundle_of_any_type_may_refer_inside_itself_and_elsewhere(served: Served, feed: str, kind: str, reference: str) -> None:
    answer = served.request(feed, "POST", "Bundle", body=bundle(kind, reference))
    assert answer.status == 201, answer.body
    assert f'"subject":{{"reference":"{reference}"}}' in answer.body.decode()  # as sent


@pytest.mark.parametrize(
    ("reference", "full_url", "status"),
    [
        (f"{BASE}/Patient/never-was", f"{EHR}/Observation/1", 422),
        ("Patient/never-was", f"{BASE}/Observation/1", 422),
        (f"{BASE}/Patient/adult", f"{EHR}/Observation/1", 201),
        ("Patient/adult", f"{BASE}/Observation/1", 201),
        (f"{BASE}/Patient/own-inside", f"{EHR}/Observation/1", 201),
        ("Patient/own-inside", f"{BASE}/Observation/1", 201),
        ("Patient/never-was", URN.replace("1", "2"), 201),
        ("/Patient/adult", f"{EHR}/Observation/1", 400),
        (f"{BASE}/Patient/adult/name", f"{EHR}/Observation/1", 400),
        ("Patient?identifier=1", f"{EHR}/Observation/1", 400),
    ],
)
def test_what_names_this_server_must_resolve(served: Served, feed: str, reference: str, full_url: str, status: int) -> None:
    answer = served.request(feed, "POST", "Bundle", body=bundle("collection", reference, full_url))
    assert answer.status == status
    assert status != 400 or answer.json["issue"][0]["expression"] == ["Bundle.entry[0].resource.subject.reference"]


def test_own_url_keeps_its_base_in_a_bundle(served: Served, feed: str) -> None:
    """A relative reference would be read against the fullUrl of its entry."""
    answer = served.request(feed, "POST", "Bundle", body=bundle("collection", f"HTTP{BASE[4:]}//Patient/adult/"))
    assert answer.json["entry"][0]["resource"]["subject"]["reference"] == f"{BASE}/Patient/adult"
