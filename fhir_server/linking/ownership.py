"""Whose a resource is: whether its subject is the linked patient.

A system that overlooks ``patient=`` sends other people's resources.  What names another patient, and what does not say whose it is,
is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from fhir_server.display.texts import objects

_SUBJECTS: Final = ("subject", "patient")  # DSTU2 has ``patient`` where R4 has ``subject``


class Owner(Enum):
    """Whose a resource is."""

    LINKED = "the linked patient's"
    OTHER = "another patient's"
    UNKNOWN = "not stated in a way that can be verified"


def owner_of(resource: Mapping[str, Any], patient: str, base: str, full_url: str = "") -> Owner:
    """Return whose the resource is.

    ``base``      FHIR base URL of the link
    ``full_url``  ``fullUrl`` of the resource in its Bundle: references may be absolute under the same base as this
    """
    bases = {base, _base_of(full_url, str(resource["resourceType"]))}
    references = list(_references(resource))
    patients = [reference for reference in references if "Patient/" in reference]
    if patients and all(_names(reference, patient, bases) for reference in patients):
        return Owner.LINKED
    return Owner.OTHER if patients or any(references) else Owner.UNKNOWN


def _references(resource: Mapping[str, Any]) -> list[str]:
    if resource["resourceType"] == "Appointment":
        actors = [actor for each in objects(resource.get("participant")) for actor in objects(each.get("actor"))]
        return [reference for actor in actors if "Patient/" in (reference := _reference(actor))]
    return [_reference(subject) for name in _SUBJECTS for subject in objects(resource.get(name))]


def _reference(value: Mapping[str, Any]) -> str:
    reference = value.get("reference")
    return reference if isinstance(reference, str) else ""


def _names(reference: str, patient: str, bases: set[str]) -> bool:
    unversioned = reference.partition("/_history/")[0]
    return unversioned in {f"Patient/{patient}"} | {f"{base}/Patient/{patient}" for base in bases if base}


def _base_of(full_url: str, type: str) -> str:
    base, found, _ = full_url.rpartition(f"/{type}/")
    return base if found and urlsplit(base).scheme in ("http", "https") else ""
