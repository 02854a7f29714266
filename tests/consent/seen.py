"""Labels a resource and tells what a caller would be shown of it, as the shipped policies decide."""

from __future__ import annotations

import base64
from typing import Any

from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.policy import ActorKind, load
from fhir_server.consent.visibility_classes import UNCLASSIFIED, UNREAD
from tests.consent.test_labeling import IG, PATIENT, label, loinc, rx, sct

__all__ = ["CALLERS", "IG", "PATIENT", "attachment", "code", "label", "loinc", "row", "rx", "sct", "sees", "shown"]

TEEN_PROXY, STANDARD = Actor(ActorKind.TEEN_PROXY), Actor(ActorKind.ADULT_PROXY, frozenset({"standard"}))
CHILD_PROXY, FULL = Actor(ActorKind.CHILD_PROXY), Actor(ActorKind.ADULT_PROXY, frozenset({"full"}))
BACKEND, ADULT = Actor(ActorKind.BACKEND), Actor(ActorKind.ADULT_SELF)
# name -> (actor, policy, labels withheld from the app)
CALLERS = {
    "TP": (TEEN_PROXY, "optum", frozenset()),
    "PS": (STANDARD, "optum", frozenset()),
    "LB": (BACKEND, "optum", frozenset()),
    "WH": (ADULT, "optum", frozenset({"HIV", "STD", "MH", UNCLASSIFIED, UNREAD})),
    "AS": (ADULT, "optum", frozenset()),
    "PC ssm": (CHILD_PROXY, "ssm", frozenset()),
    "PF strict": (FULL, "strict", frozenset()),
}
_POLICIES = {name: load(name) for name in ("optum", "ssm", "strict")}


def sees(caller: str, key: Any) -> bool:
    """Whether the caller may see resources or parts of a visibility class."""
    actor, policy, withheld = CALLERS[caller]
    return permits(_POLICIES[policy], actor, key) and not key.labels & withheld


def shown(caller: str, resource: dict[str, Any], *others: dict[str, Any]) -> set[str] | None:
    """The elements of a resource that are shown to a caller, as dotted paths, an item as a whole; None if the resource is withheld."""
    found = label(resource, *others)
    if not sees(caller, found.key):
        return None
    cut = [path for path, key in found.labeled_elements if not sees(caller, key)]
    return set(_paths(resource, (), cut))


def _paths(node: Any, path: tuple[str | int, ...], cut: list[tuple[str | int, ...]]) -> list[str]:
    if path in cut:
        return []
    here = [".".join(map(str, path))] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return here + [each for step, inner in items for each in _paths(inner, (*path, step), cut)]


def row(type: str, /, **elements: Any) -> dict[str, Any]:
    """A resource about the patient."""
    subject = {"Claim": "patient", "ExplanationOfBenefit": "patient", "ClaimResponse": "patient", "Immunization": "patient",
               "AllergyIntolerance": "patient", "FamilyMemberHistory": "patient", "EpisodeOfCare": "patient", "Coverage": "beneficiary",
               "CoverageEligibilityRequest": "patient", "CoverageEligibilityResponse": "patient", "Task": "for", "Device": "patient",
               "MolecularSequence": "patient"}.get(type, "subject")  # fmt: skip
    about = {} if type == "Appointment" else {subject: PATIENT}
    return {"resourceType": type, "id": "r", **about, **elements}


def code(system: str, value: str, **more: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": value, **more}]}


def attachment(text: str, kind: str = "text/plain") -> dict[str, str]:
    return {"contentType": kind, "data": base64.b64encode(text.encode()).decode()}
