"""Labels by what a row says of itself: that it was entered in error, or that it is a psychotherapy note."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.resources import catalog, statuses
from tests.consent.test_labeling import PATIENT, label, loinc, observation, parts, sct


def _is_held(type: str, resource: dict[str, Any]) -> bool:
    return "HELD" in label({"resourceType": type, "id": "x"} | resource).key.labels


# The elements of R4 of which a code says that the resource was entered in error; all other types have ``status``, or no such code.
ERROR_ELEMENTS = {
    "AllergyIntolerance": ("verificationStatus",),
    "Condition": ("verificationStatus",),
    "DeviceMetric": ("operationalStatus",),
    "DocumentReference": ("docStatus", "status"),
    "Goal": ("lifecycleStatus",),
}


@pytest.mark.parametrize("type", [name for name, known in catalog().items() if known.data_class != "directory"])
def test_resource_entered_in_error_is_held_whatever_element_says_so(type: str) -> None:
    own = tuple(sorted(path for path in statuses.elements_of_error(type) if "." not in path))
    assert own in (ERROR_ELEMENTS.get(type, ("status",)), ())
    assert bool(own) or type not in ERROR_ELEMENTS
    for element in own:
        concept = element == "verificationStatus"
        for code in ("entered-in-error", "unknown"):
            value = {"coding": [{"code": "x"}, {"code": code}]} if concept else code
            assert _is_held(type, {element: value}) is (code == "entered-in-error"), element


def test_part_entered_in_error_is_held_alone() -> None:
    def activity(status: str) -> dict[str, Any]:
        return {"detail": {"status": status, "code": sct("306206005")}}

    plan = {"resourceType": "CarePlan", "id": "c", "subject": PATIENT, "status": "active", "intent": "plan",
            "activity": [activity("completed"), activity("entered-in-error")]}  # fmt: skip
    found = label(plan)
    assert "HELD" not in found.key.labels
    assert "HELD" in parts(found)["activity", 1] and "HELD" not in parts(found).get(("activity", 0), "")


@pytest.mark.parametrize("code", ["PSYTHPN", "HIPAAPsyNotes"])
def test_note_that_its_author_marks_as_psychotherapy_note_has_a_data_class_of_its_own(code: str) -> None:
    mark = {"securityLabel": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": code}]}]}
    note = {"resourceType": "DocumentReference", "id": "d", "status": "current", "subject": PATIENT, "type": loinc("11506-3"),
            "content": [{"attachment": {"title": "x"}}]}  # fmt: skip
    text = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "securityContext": {"reference": "DocumentReference/d"}}
    assert label(note).key.data == label(text, note).key.data == "note"  # the control
    assert label(note | mark).key.data == label(text, note | mark).key.data == "psynote"
    assert "PSYNOTE" in label(text, note | mark).key.labels
    assert label(observation(loinc("718-7"), meta={"security": mark["securityLabel"][0]["coding"]})).key.data == "lab"
