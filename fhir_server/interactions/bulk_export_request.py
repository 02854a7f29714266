"""What a Bulk Data kick-off asks for (https://hl7.org/fhir/uv/bulkdata/STU2/export.html#query-parameters)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, parse_query
from fhir_server.resources import COMMON_DATA_CLASSES, catalog
from fhir_server.search import query
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, OfPatient

Level = Literal["system", "patient", "group"]
_FORMATS = frozenset({"application/fhir+ndjson", "application/ndjson", "ndjson"})
_PARAMETERS = frozenset({"_outputFormat", "_since", "_type", "_typeFilter", "patient", "_format", "_pretty"})
# A comma inside a search is escaped or encoded; one before another type begins the next search.
_BETWEEN = re.compile(r",(?=[A-Z][A-Za-z]+\?)")


class ExportRequest(msgspec.Struct, frozen=True):
    """A kick-off, checked.  ``patients`` None: not limited to some; ``searches``: query strings of which a row must meet one."""

    level: Level
    group: str = ""
    since: str = ""
    types: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    searches: dict[str, tuple[str, ...]] = {}

    def type_names(self, view: View) -> tuple[str, ...]:
        """The types to export: those asked for, else those of the level that a scope covers.

        Raises Problem ``forbidden`` for a type that was asked for and that no scope covers, and if no type is left.
        """
        for type in self.types:
            view.permissions.require(type, "r")
        covered = self.types or [type for type in sorted(catalog()) if self._has(type) and view.permissions.scopes(type, "r")]
        if not covered:
            raise Problem("forbidden", "The scopes of this access token cover nothing to export.")
        return tuple(covered)

    def _has(self, type: str) -> bool:
        return self.level == "system" or bool(catalog()[type].subjects) or catalog()[type].data_class in COMMON_DATA_CLASSES

    async def condition(self, view: View, type: str, base: str) -> Filter:
        """What a row of ``type`` must meet.  Raises Problem ``not_found`` for a group that is not in view (any longer)."""
        parts: list[Filter] = []
        if catalog()[type].subjects:
            if self.level == "group":
                parts.append(OfPatient(await _members(view, self.group)))
            if self.patients is not None:
                parts.append(OfPatient(frozenset(self.patients)))
        if self.since:
            parts.append(query.condition(type, [("_lastUpdated", f"ge{self.since}")], view.now, base))
        if type in self.searches:
            searches = [query.condition(type, parse_query(text.encode()), view.now, base) for text in self.searches[type]]
            parts.append(AnyOf(tuple(searches)))
        return AllOf(tuple(parts)) if parts else EVERYTHING


def read(request: Request) -> ExportRequest:
    """The kick-off that this request is.  Raises Problem ``invalid`` for what is malformed, or not supported unless lenient."""
    pairs = (*request.query, *(_sent(request) if request.method == "POST" else ()))
    unknown = sorted({name for name, _ in pairs} - _PARAMETERS)
    if unknown and request.preference("handling", "strict") != "lenient":
        raise Problem("invalid", f"$export does not support the parameter {unknown[0]}.")
    for name, value in pairs:
        if name == "_outputFormat" and value.replace(" ", "+") not in _FORMATS:
            raise Problem("invalid", "_outputFormat is application/fhir+ndjson.")
    level: Level = "system" if len(request.path) == 1 else "patient" if request.path[0] == "Patient" else "group"
    types = tuple(dict.fromkeys(name for value in _values(pairs, "_type") for name in value.split(",")))
    patients = _patients(pairs) if level != "system" else None
    since = _values(pairs, "_since")
    return ExportRequest(
        level, request.path[1] if level == "group" else "", since[-1] if since else "", _known(types), patients, _searches(pairs)
    )


def _values(pairs: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for given, value in pairs if given == name]


def _known(types: tuple[str, ...]) -> tuple[str, ...]:
    for type in types:
        if type not in catalog():
            raise Problem("invalid", f"{type} is not a resource type of R4.")
    return types


def _patients(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...] | None:
    named = _values(pairs, "patient")
    return tuple(one.removeprefix("Patient/") for one in named) if named else None


def _searches(pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for value in _values(pairs, "_typeFilter"):
        for text in _BETWEEN.split(value):
            type, mark, search = text.partition("?")
            if not mark:
                raise Problem("invalid", "_typeFilter holds searches such as Observation?category=laboratory.")
            _known((type,))
            found[type] = (*found.get(type, ()), search)
    return found


def _sent(request: Request) -> tuple[tuple[str, str], ...]:
    """The pairs of a Parameters resource."""
    request.require_json()
    value = jsontext.parse(request.body)
    given = value.get("parameter", []) if isinstance(value, dict) and value.get("resourceType") == "Parameters" else None
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise Problem("invalid", "A kick-off by POST takes a Parameters resource.")
    return tuple((str(one.get("name", "")), _text(one)) for one in given)


def _text(parameter: dict[str, Any]) -> str:
    value = next((value for name, value in parameter.items() if name.startswith("value")), "")
    return str(value.get("reference", "")) if isinstance(value, dict) else str(value)


async def _members(view: View, group: str) -> frozenset[str]:
    """The ids of the Patients that a Group in view lists and that take part."""
    members = jsontext.parse((await view.read("Group", group)).body).get("member", [])
    names = [str(one.get("entity", {}).get("reference", "")) for one in members if not one.get("inactive", False)]
    return frozenset(name.removeprefix("Patient/") for name in names if name.startswith("Patient/"))
