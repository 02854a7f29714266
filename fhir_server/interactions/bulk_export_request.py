"""Parses the parameters of a Bulk Data kick-off request (https://hl7.org/fhir/uv/bulkdata/STU2/export.html#query-parameters)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.consent.provisions import period_of
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, parse_query
from fhir_server.interactions.parameters_body import parameters_in
from fhir_server.resources import COMMON_DATA_CLASSES, catalog
from fhir_server.resources.elements import target_of
from fhir_server.resources.references import versioned_target
from fhir_server.resources.server_base import server_base
from fhir_server.search import query
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, OfPatient
from fhir_server.search.parameter_types.date import interval
from fhir_server.search.zones import zone_of
from fhir_server.store.conditions import conjuncts

Level = Literal["system", "patient", "group"]
_FORMATS = frozenset({"application/fhir+ndjson", "application/ndjson", "ndjson"})
_PARAMETERS = frozenset({"_outputFormat", "_since", "_type", "_typeFilter", "_elements", "patient", "_format", "_pretty"})
_ELEMENT = re.compile("[A-Za-z]{1,64}")
_UNSERVED = {
    "includeAssociatedData": "Provenances are exported as any other type: ask for them with _type.",
    "organizeOutputBy": "Files are made by type alone.",
}
# A comma within a search is escaped or encoded.  A comma before another type separates two searches.
_SEPARATOR = re.compile(r",(?=[A-Z][A-Za-z]+\?)")


class ExportRequest(msgspec.Struct, frozen=True):
    """A checked kick-off request.

    ``group``     id of the Group, at level ``group``
    ``since``     the _since parameter, or ""
    ``types``     the _type parameter; empty: all types of the level that a scope covers
    ``patients``  ids of the patients to export; None: all
    ``searches``  query strings by type (_typeFilter); a resource must match one of them
    ``elements``  names of elements by type, "" for all types (_elements)
    """

    level: Level
    group: str = ""
    since: str = ""
    types: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    searches: dict[str, tuple[str, ...]] = {}
    elements: dict[str, tuple[str, ...]] = {}

    def elements_of(self, type: str) -> tuple[str, ...]:
        """The elements of this type to which its resources are reduced; none: they are whole."""
        return (*self.elements.get("", ()), *self.elements.get(type, ()))

    def type_names(self, view: View) -> tuple[str, ...]:
        """The types to export: the requested ones, or those of the level that a scope covers.

        Raises Problem ``forbidden`` if no scope covers a requested type, or any type.
        """
        for type in self.types:
            view.permissions.require(type, "r")
        covered = self.types or [type for type in sorted(catalog()) if self._contains(type) and view.permissions.scopes(type, "r")]
        if not covered:
            raise Problem("forbidden", "The scopes of this access token cover no type to export.")
        return tuple(covered)

    def _contains(self, type: str) -> bool:
        return self.level == "system" or bool(catalog()[type].subjects) or catalog()[type].data_class in COMMON_DATA_CLASSES

    async def condition(self, view: View, type: str, base: str, zone: ZoneInfo) -> Filter:
        """The filter for resources of ``type``.  Raises Problem ``not_found`` if the group is hidden or absent."""
        filters = [*conjuncts(await self.patients_condition(view, type, zone))]
        if self.since:
            filters.append(query.condition(type, [("_lastUpdated", f"ge{self.since}")], view.now, base))
        if type in self.searches:
            searches = [query.condition(type, parse_query(text.encode()), view.now, base) for text in self.searches[type]]
            filters.append(AnyOf(tuple(searches)))
        return AllOf(tuple(filters)) if filters else EVERYTHING

    def since_instant(self, base: str) -> int:
        """``_since`` in microseconds, as a search by ``_lastUpdated`` reads it.  Raises ValueError if it is no date."""
        return interval(self.since, zone_of(base))[0]

    async def patients_condition(self, view: View, type: str, zone: ZoneInfo) -> Filter:
        """The filter for resources of the patients to export.  Raises Problem ``not_found`` if the group is hidden or absent."""
        filters: list[Filter] = []
        if catalog()[type].subjects:
            if self.level == "group":
                filters.append(OfPatient(await member_patients(view, self.group, zone)))
            if self.patients is not None:
                filters.append(OfPatient(frozenset(self.patients)))
        return AllOf(tuple(filters)) if filters else EVERYTHING


def parse(request: Request, base: str) -> ExportRequest:
    """Parse a kick-off request.

    Raises Problem ``invalid`` for malformed parameters, and for unsupported ones unless Prefer is handling=lenient.
    """
    pairs = (*request.query, *(parameters_in(request) if request.method == "POST" else ()))
    unknown = sorted({name for name, _ in pairs} - _PARAMETERS)
    if unknown and request.preference("handling", "strict") != "lenient":
        raise Problem("invalid", f"$export does not support the parameter {unknown[0]}. {_UNSERVED.get(unknown[0], '')}".rstrip())
    for name, value in pairs:
        if name == "_outputFormat" and value.replace(" ", "+") not in _FORMATS:
            raise Problem("invalid", "_outputFormat must be application/fhir+ndjson.")
    level: Level = "system" if len(request.path) == 1 else "patient" if request.path[0] == "Patient" else "group"
    types = tuple(dict.fromkeys(name for value in _values(pairs, "_type") for name in value.split(",")))
    _require_types(types)
    patients = _patients(pairs, base) if level != "system" else None
    since = _values(pairs, "_since")
    return ExportRequest(
        level, request.path[1] if level == "group" else "", since[-1] if since else "", types, patients, _searches(pairs), _elements(pairs)
    )


def _values(pairs: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for pair_name, value in pairs if pair_name == name]


def _require_types(types: tuple[str, ...]) -> None:
    for type in types:
        if type not in catalog():
            raise Problem("invalid", f"{type} is not a resource type of R4.")


def _patients(pairs: Sequence[tuple[str, str]], base: str) -> tuple[str, ...] | None:
    references = _values(pairs, "patient")
    return tuple(_patient_id(reference, base) for reference in references) if references else None


def _patient_id(reference: str, base: str) -> str:
    """The id in a reference to a Patient of this server; another text stands for a patient who does not exist."""
    target = versioned_target(server_base(base).relative(reference) or reference)
    return target[1] if target is not None and target[0] == "Patient" else reference


def _searches(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    searches: dict[str, tuple[str, ...]] = {}
    for value in _values(pairs, "_typeFilter"):
        for text in _SEPARATOR.split(value):
            type, mark, search = text.partition("?")
            if not mark:
                raise Problem("invalid", "_typeFilter must contain searches such as Observation?category=laboratory.")
            _require_types((type,))
            searches[type] = (*searches.get(type, ()), search)
    return searches


def _elements(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The elements that are asked for, by type.  Raises Problem ``invalid``."""
    found: dict[str, tuple[str, ...]] = {}
    for name in [name.strip() for value in _values(pairs, "_elements") for name in value.split(",")]:
        type, dot, element = name.rpartition(".")
        if not _ELEMENT.fullmatch(element) or (dot and type not in catalog()):
            raise Problem("invalid", f"_elements has names such as id or Patient.birthDate, not {name[:80]!r}.")
        found[type] = (*found.get(type, ()), element)
    return found


async def member_patients(view: View, group: str, zone: ZoneInfo) -> frozenset[str]:
    """The ids of the Patients who are members of a visible Group now: not inactive, and in the period of their membership."""
    members = jsontext.parse((await view.read("Group", group)).body).get("member", [])
    present = [member for member in members if not member.get("inactive", False) and _is_now(member, view.now, zone)]
    targets = [target_of(member.get("entity", {})) for member in present]
    return frozenset(target[1] for target in targets if target is not None and target[0] == "Patient")


def _is_now(member: dict[str, Any], now: int, zone: ZoneInfo) -> bool:
    period = period_of(member, zone)
    return period is not None and period[0] <= now < period[1]
