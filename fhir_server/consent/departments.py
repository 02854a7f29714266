"""Reads the category of a department from the directory: Location, HealthcareService, Organization, PractitionerRole, Practitioner.

Every caller sees the directory alike, so the category of a department is no part of its visibility class. The server reads it from
codes, names and security labels when it labels a resource that refers to the department (docs/policy.md, how a resource is labeled).
A category that a department has lent stays lent: it is read from all versions, and from the last one of a deleted department.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

from fhir_server import jsontext
from fhir_server.consent import security_labels
from fhir_server.consent.code_reading import read
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import CATEGORIES, MC
from fhir_server.resources import elements

PLACES: Final = frozenset({"Location", "HealthcareService", "Organization", "PractitionerRole"})
TYPES: Final = PLACES | {"Practitioner"}
_CODED: Final = ("type", "category", "specialty", "program", "code", "name", "alias", "qualification.code")
_PARENTS: Final = ("partOf", "managingOrganization", "providedBy", "organization", "location", "healthcareService", "practitioner")
_MAX_DEPTH: Final = 6


class HasBodies(Protocol):
    """A department: the bodies of its versions, and the JSON text of its only version if it has no more than one, else empty."""

    @property
    def text(self) -> bytes: ...

    async def bodies(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class SingleBody:
    """A department without versions: a contained resource."""

    body: Mapping[str, Any]
    text: bytes = b""

    async def bodies(self) -> Sequence[Mapping[str, Any]]:
        return (self.body,)


Resolve = Callable[[Any], Awaitable["tuple[str, HasBodies | None] | None"]]
"""From a reference to the type of the department and its versions (None: missing); None for a reference to anything else."""


@dataclass(frozen=True, slots=True)
class Department:
    """What is known of a department.

    ``labels``          labels of its category
    ``known``           whether a code or label says what kind of department it is
    ``needs_category``  whether it is a department, so that a category is expected
    """

    labels: frozenset[str]
    known: bool
    needs_category: bool

    @property
    def is_classified(self) -> bool:
        """Whether a visit to the department can be classified."""
        return self.known or not self.needs_category


@dataclass(frozen=True, slots=True)
class DepartmentReading:
    """What one resource of the directory says of itself, and the references to what it is part of."""

    labels: frozenset[str]
    known: bool
    needs_category: bool
    parents: tuple[str, ...]


def read_body(codes: SensitivityCodes, type: str, body: Mapping[str, Any]) -> DepartmentReading:
    """Read one version of a department."""
    readings = [read(codes, value) for name in _CODED for _, value in elements.at(body, name) if type != "Practitioner" or name != "name"]
    labels = security_labels.labels(body).union(*(reading.labels for reading in readings)) & (CATEGORIES | {MC})
    known = any(reading.classified for reading in readings) or bool(labels)
    found = (value.get("reference") for name in _PARENTS for _, value in elements.at(body, name) if isinstance(value, dict))
    parents = tuple(dict.fromkeys(text for text in found if isinstance(text, str)))
    return DepartmentReading(labels, known, _is_department(type, body), parents)


@lru_cache(4096)  # most resources name the same few people and places
def _read_text(codes: SensitivityCodes, type: str, text: bytes) -> DepartmentReading:
    return read_body(codes, type, jsontext.parse(text))


def read_versions(codes: SensitivityCodes, type: str, bodies: Iterable[Mapping[str, Any]]) -> DepartmentReading:
    """Read all versions of a department, oldest first: labels and parents of any, and what kind the newest one says it is."""
    readings = [read_body(codes, type, body) for body in bodies]
    newest = readings[-1]
    labels = newest.labels.union(*(reading.labels for reading in readings))
    parents = dict.fromkeys(parent for reading in reversed(readings) for parent in reading.parents)
    return DepartmentReading(labels, newest.known, newest.needs_category, tuple(parents))


async def read_department(codes: SensitivityCodes, type: str, department: HasBodies | None, resolve: Resolve, depth: int = 0) -> Department:
    """Read a department and what it is part of; ``resolve`` follows its references.

    A missing one, or one nested too deeply to follow, is unclassified; a missing person is no department.
    """
    if department is None or depth > _MAX_DEPTH:
        return Department(frozenset(), known=False, needs_category=type != "Practitioner")
    text = department.text
    reading = _read_text(codes, type, text) if text else read_versions(codes, type, await department.bodies())
    labels, known, needs_category = reading.labels, reading.known, reading.needs_category
    for reference in reading.parents:
        parent = await resolve(reference)
        if parent is not None:
            above = await read_department(codes, *parent, resolve, depth + 1)
            labels |= above.labels
            known = known or (above.known and parent[0] == type)
            needs_category = needs_category or (type == "PractitionerRole" and not above.is_classified)
    return Department(labels, known, needs_category)


def _is_department(type: str, body: Any) -> bool:
    """Whether the resource is a place or service with a category of its own, not a person's role or the whole institution."""
    if type == "Organization":
        return any(value.get("code") == "dept" for _, value in elements.at(body, "type.coding"))
    return type not in ("PractitionerRole", "Practitioner")
