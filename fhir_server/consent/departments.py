"""The department behind a visit: what Location, HealthcareService, Organization and PractitionerRole rows say of it.

Directory rows look the same to everybody, so a department's category is no part of their class; it is read from their
codes, names and security labels whenever a row that names them is labelled.
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
_DEEPEST: Final = 6


class HasBody(Protocol):
    @property
    def body(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Department:
    """``labels`` of its category; ``known``: somebody has said what it is; ``asks``: a category is to be expected of it."""

    labels: frozenset[str]
    known: bool
    asks: bool

    @property
    def mapped(self) -> bool:
        return self.known or not self.asks


async def department(
    book: SensitivityCodes, type: str, id: str, lookup: Callable[[str, str], Awaitable[HasBody | None]], depth: int = 0
) -> Department:
    """Read a department and what it is part of.  One that is missing, or nested too deep to follow, is unmapped."""
    target = await lookup(type, id)
    if target is None or depth > _DEEPEST:
        return Department(frozenset(), known=False, asks=True)
    readings = [read(book, value) for name in _CODED for _, value in elements.at(target.body, name)]
    labels = security_labels.labels(target.body).union(*(one.labels for one in readings)) & (CATEGORIES | {MC})
    known = any(one.classified for one in readings) or bool(labels)
    asks = _is_department(type, target.body)
    for name in _PARENTS:
        for _, value in elements.at(target.body, name):
            parent = elements.target_of(value)
            if parent is not None and parent[0] in TYPES:
                above = await department(book, parent[0], parent[1], lookup, depth + 1)
                labels |= above.labels
                known = known or (above.known and parent[0] == type)
                asks = asks or (type == "PractitionerRole" and not above.mapped)
    return Department(labels, known, asks)


def _is_department(type: str, body: Any) -> bool:
    """Whether the row stands for a place or service with a category of its own: not a person's role, not the institution."""
    if type == "Organization":
        return any(value.get("code") == "dept" for _, value in elements.at(body, "type.coding"))
    return type != "PractitionerRole"
