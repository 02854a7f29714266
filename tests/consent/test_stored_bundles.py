"""A stored Bundle has the labels of everything in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.consent.seen import PATIENT, attachment, label, loinc, row, sct, shown

HEMOGLOBIN = loinc("718-7")


def result(**more: Any) -> dict[str, Any]:
    return row("Observation", **{"status": "final", "category": [{"coding": [{"code": "laboratory"}]}], "code": HEMOGLOBIN, **more})


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [{"fullUrl": f"urn:uuid:{number}", "resource": resource} for number, resource in enumerate(resources)]
    return {"resourceType": "Bundle", "id": "b", "type": "document", "entry": entries}


DOCUMENT = row("Composition", type=loinc("34133-9"), title="Summary", status="final")


@pytest.mark.parametrize(
    ("inner", "labels"),
    [
        ([], set()),
        ([result()], set()),
        ([result(code=loinc("20447-9"))], {"HIV"}),
        ([result(note=[{"text": "HIV discussed"}])], {"HIV"}),  # a part that would be cut from a row
        ([result(code={"text": "x"})], {"UNCLASSIFIED"}),
        ([{"resourceType": "Nonsense"}], {"UNCLASSIFIED"}),
        ([result(status="preliminary")], {"HELD"}),
        ([row("Encounter", id="e", type=[sct("185349003")], meta={"security": [{"code": "PSY"}]}),
          result(encounter={"reference": "urn:uuid:1"})], {"MH"}),
        ([row("DocumentReference", type=loinc("11506-3"), content=[{"attachment": attachment("x", "image/png")}])], {"UNREAD"}),
        ([{"resourceType": "Bundle", "type": "collection", "entry": [{"resource": result(code=loinc("20447-9"))}]}], {"HIV"}),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_bundle_has_the_labels_of_its_entries(inner: list[dict[str, Any]], labels: set[str]) -> None:
    found = label(bundle(DOCUMENT, *inner))
    assert found.key.labels == labels and found.key.data == "other"
    assert (shown("LB", bundle(DOCUMENT, *inner)) is None) is bool(labels)


def test_entries_inherit_from_each_other_and_from_stored_rows() -> None:
    visit = row("Encounter", type=[sct("185349003")], status="finished", serviceType={"coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/service-type", "code": "141"}]})  # fmt: skip
    within = bundle({**visit, "id": "e"}, result(encounter={"reference": "Encounter/e"}))
    assert label(within).key.labels == {"MH"} and label(within).label_sources == ()
    outside = bundle(result(encounter={"reference": "Encounter/stored"}))
    assert label(outside, {**visit, "id": "stored"}).key.labels == {"MH"}
    assert label(outside, {**visit, "id": "stored"}).label_sources == ("Encounter/stored",)
    assert "UNCLASSIFIED" in label(outside).key.labels  # a context that is missing


def test_a_circle_of_entries_ends() -> None:
    first = result(id="a", hasMember=[{"reference": "Observation/b"}])
    second = result(id="b", code=loinc("20447-9"), derivedFrom=[{"reference": "Observation/a"}])
    assert label(bundle(first, second)).key.labels == label(bundle(second, first)).key.labels == {"HIV"}
    assert PATIENT["reference"] == "Patient/p"
