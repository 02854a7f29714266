"""Reads the category of a department from Location, HealthcareService, Organization and PractitionerRole resources.

Every caller sees the directory alike, so the category of a department is no part of its visibility class. The server reads it from
codes, names and security labels when it labels a resource that refers to the department (docs/policy.md, how a resource is labeled).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fhir_server.consent import security_labels
from fhir_server.consent.code_reading import read
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import CATEGORIES, MC
from fhir_server.resources import elements

TYPES: Final = frozenset({"Location", "HealthcareService", "Organization", "PractitionerRole"})
_CODED: Final = ("type", "category", "specialty", "code", "name", "alias")
_PARENTS: Final = ("partOf", "managingOrganization", "providedBy", "organization", "location", "healthcareService")
_MAX_DEPTH: Final = 6


class HasBody(Protocol):
    @property
    def body(self) -> Any: ...


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


async def read_department(
    codes: SensitivityCodes, type: str, id: str, lookup: Callable[[str, str], Awaitable[HasBody | None]], depth: int = 0
) -> Department:
    """Read a department and what it is part of.  A missing one, or one nested too deeply to follow, is unclassified."""
    target = await lookup(type, id)
    if target is None or depth > _MAX_DEPTH:
        return Department(frozenset(), known=False, needs_category=True)
    readings = [read(codes, value) for name in _CODED for _, value in elements.at(target.body, name)]
    labels = security_labels.labels(target.body).union(*(reading.labels for reading in readings)) & (CATEGORIES | {MC})
    known = any(reading.classified for reading in readings) or bool(labels)
    needs_category = _is_department(type, target.body)
    for name in _PARENTS:
        for _, value in elements.at(target.body, name):
            parent = elements.target_of(value)
            if parent is not None and parent[0] in TYPES:
                above = await read_department(codes, parent[0], parent[1], lookup, depth + 1)
                labels |= above.labels
                known = known or (above.known and parent[0] == type)
                needs_category = needs_category or (type == "PractitionerRole" and not above.is_classified)
    return Department(labels, known, needs_category)


def _is_department(type: str, body: Any) -> bool:
    """Whether the resource is a place or service with a category of its own, not a person's role or the whole institution."""
    if type == "Organization":
        return any(value.get("code") == "dept" for _, value in elements.at(body, "type.coding"))
    return type != "PractitionerRole"
