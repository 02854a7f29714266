"""Names the medicine of a prescription or a statement, which may be a code, a contained resource or a resource of the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_server.display.texts import first_text, objects, plain

_NOT_NAMED: Final = "A medicine without a name"
# ``medication`` alone is R5's CodeableReference
_DIRECT: Final = ("medicationCodeableConcept", "medication.concept", "medicationReference.display", "medication.reference.display")
_MEDICATION: Final = (
    "code",
    "code.concept",
    "product.ingredient.item",
    "ingredient.itemCodeableConcept",
    "ingredient.itemReference.display",
)


def name_medicine(resource: Mapping[str, Any], included: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the medicine's name.  ``included``: resources of the same answer, by ``Type/id``."""
    if direct := first_text(resource, *_DIRECT):
        return direct
    reference = _reference(resource)
    contained = {f"#{plain(each.get('id'))}": each for each in objects(resource.get("contained"))}
    known: Mapping[str, Any] = contained.get(reference) or included.get("/".join(reference.split("/")[-2:])) or {}
    return first_text(known, *_MEDICATION) or _NOT_NAMED


def _reference(resource: Mapping[str, Any]) -> str:
    for name in ("medicationReference", "medication"):
        value = resource.get(name)
        if isinstance(value, dict):
            nested = value.get("reference")
            return plain(nested.get("reference") if isinstance(nested, dict) else nested)
    return ""
