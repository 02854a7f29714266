"""``$everything`` of a Patient, an Encounter, a Group, and of the caller's own patients (``Patient/$everything``), by GET and POST.

See http://hl7.org/fhir/R4/operation-patient-everything.html, operation-encounter-everything.html and operation-group-everything.html.
Reads the record type by type in the caller's View.  A page link contains the type and the position in it at which the next
page begins.  A resource belongs to the record by its deciding subject, so no reference leads into another person's record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from fhir_server import budget, jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisiblePage, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, paged_parameters, preconditions
from fhir_server.interactions.bulk_export_request import member_patients
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.parameters_body import parameters_in
from fhir_server.interactions.service import Service
from fhir_server.interactions.subset import SHAPING, shape_of, subset
from fhir_server.interactions.type_pages import read_page
from fhir_server.resources import catalog, definitions
from fhir_server.resources.elements import target_of
from fhir_server.resources.references import versioned_target
from fhir_server.search import query
from fhir_server.search.criteria import refers
from fhir_server.search.filters import AllOf, AnyOf, Filter, IdIs, OfPatient
from fhir_server.search.limits import require_searchable
from fhir_server.search.result_parameters import MAX_COUNT
from fhir_server.search.rows import Position
from fhir_server.writing.references import references

_CARE_PERIOD = frozenset({"start", "end"})
_PARAMETERS = frozenset({"_since", "_type", "_count", "_elements", "_summary", "_page", "_format", "_pretty"})
# Search parameters for the date of care, most preferred first.
_CARE_DATES = (
    "date",
    "period",
    "effective",
    "effective-time",
    "authoredon",
    "onset-date",
    "recorded-date",
    "created",
    "sent",
    "whenhandedover",
    "issued",
)


class _Record(NamedTuple):
    """What is asked for: the type that comes first, all types, and the condition on those of a type."""

    first: str
    types: frozenset[str]
    within: Callable[[str], Filter]


async def everything(view: View, request: Request, service: Service) -> Response:
    """A searchset of the record that the path names, and of the shared resources (practitioners, medications) to which it refers.

    Raises Problem ``forbidden``, ``not_found``, ``gone`` or ``invalid``.
    """
    admit(view.permissions, request.path[0])
    preconditions.require_only(request)
    pairs = (*request.query, *parameters_in(request)) if request.method == "POST" else request.query
    require_searchable(pairs)
    shape = shape_of([pair for pair in pairs if pair[0] in SHAPING])
    record = await _record(view, request.path, service)
    known = _PARAMETERS | _CARE_PERIOD if request.path[0] != "Encounter" else _PARAMETERS
    parameters = paged_parameters.read(view, request, service, pairs, known, MAX_COUNT, least=1)
    wanted = _wanted(parameters.values)

    async def find(type: str, limit: int, after: Position | None) -> VisiblePage:
        where = AllOf((record.within(type), *_narrowing(type, parameters.values, view.now, service)))
        return await view.find_readable(type, where, limit=limit, after=after)

    types = tuple(name for name in record.types if wanted is None or name in wanted)
    matches, end = await read_page(types, parameters.count, parameters.position, find, first=record.first)
    links = [("self", parameters.self_link)]
    if end is not None:
        links.append(("next", parameters.next_link(end)))
    referenced = await _find_referenced(view, matches, wanted)
    entries = await budget.each(lambda version: bundle_json.entry(version, service.base, body=subset(version.body, shape)), matches)
    entries += await budget.each(
        lambda version: bundle_json.entry(version, service.base, "include", subset(version.body, shape)), referenced
    )
    return Response(200, headers=((b"content-type", JSON),), parts=bundle_json.searchset(entries, links=links))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to read what the record is that of.  Raises Problem ``forbidden``."""
    permissions.require(type, "r")


async def _record(view: View, path: tuple[str, ...], service: Service) -> _Record:
    """What the path names.  Raises Problem ``not_found``, ``gone`` or ``forbidden``."""
    if len(path) == 2:
        return await _of_patients(view, _own_patients(view.permissions), "Patient")
    type, id = path[:2]
    version = await view.read(type, id)
    if type == "Patient":
        return await _of_patients(view, frozenset({id}), "Patient")
    if type == "Encounter":
        return _of_encounter(view, id, version)
    members = await member_patients(view, id, service.policy.timezone)
    record = await _of_patients(view, members, "Group")
    return _Record("Group", record.types | {"Group"}, lambda name: IdIs(frozenset({id})) if name == "Group" else record.within(name))


def _own_patients(permissions: Permissions) -> frozenset[str]:
    """The patients of whose records a request without an id is: the one in context, or all whom this caller may see, if they are few.

    Raises Problem ``forbidden`` for callers who are not limited to patients.
    """
    if permissions.principal.patient:
        return frozenset({permissions.principal.patient})
    if permissions.patients is None:
        raise Problem("forbidden", "Of all patients there is Patient/$export; Patient/[id]/$everything is the record of one.")
    return permissions.patients


async def _of_patients(view: View, patients: frozenset[str], first: str) -> _Record:
    stored = await view.types_of_unfiltered(*patients)
    return _Record(first, frozenset({"Patient", *stored}) & _readable(view, catalog()), lambda _: OfPatient(patients))


def _readable(view: View, types: Iterable[str]) -> frozenset[str]:
    """Those of these types that are of patients, and that a scope covers."""
    return frozenset(name for name in types if catalog()[name].subjects and view.permissions.scopes(name, "r"))


def _of_encounter(view: View, id: str, version: VisibleVersion) -> _Record:
    """The encounter, what refers to it by R4's compartment, and its patient."""
    members = definitions.compartments()["Encounter"]
    subject = target_of(jsontext.parse(jsontext.members(version.body).get("subject", b"{}")))
    itself = frozenset({f"Encounter/{id}"})

    def within(type: str) -> Filter:
        if type == "Patient":
            return IdIs(frozenset({subject[1]}) if subject is not None and subject[0] == type else frozenset())
        if type == "Encounter":
            return IdIs(frozenset({id}))
        return AnyOf(tuple([refers(type, code, itself) for code in members[type]]))

    return _Record("Encounter", _readable(view, {*members, "Patient"}), within)


def _wanted(parameters: dict[str, str]) -> frozenset[str] | None:
    """The types that are asked for; None: all.  Raises Problem ``invalid``."""
    if not parameters.get("_type"):
        return None
    wanted = frozenset(parameters["_type"].split(","))
    for name in sorted(wanted):
        if name not in catalog():
            raise Problem("invalid", f"{name} is not a resource type of R4.")
    return wanted


def _narrowing(type: str, parameters: dict[str, str], now: int, service: Service) -> Iterator[Filter]:
    """The conditions of _since, and of start and end for resources with a date of care."""
    if "_since" in parameters:
        yield query.condition(type, [("_lastUpdated", f"ge{parameters['_since']}")], now=now, base=service.base)
    care_date = _care_date(type)
    bounds = [(prefix, parameters[name]) for name, prefix in (("start", "ge"), ("end", "le")) if name in parameters]
    if care_date and bounds:
        dated = query.condition(type, [(care_date, prefix + instant) for prefix, instant in bounds], now=now, base=service.base)
        undated = query.condition(type, [(f"{care_date}:missing", "true")], now=now, base=service.base)
        yield AnyOf((dated, undated))


def _care_date(type: str) -> str | None:
    dates = {parameter.code for parameter in definitions.search_parameters(type) if parameter.kind == "date"}
    return next((code for code in _CARE_DATES if code in dates), None)


async def _find_referenced(view: View, matches: Sequence[VisibleVersion], wanted: frozenset[str] | None) -> list[VisibleVersion]:
    """The visible resources of no patient that the matches refer to: practitioners, locations, medications; of types that are wanted."""
    names = {f"{version.type}/{version.id}" for version in matches}
    referenced = {reference for found in await budget.each(lambda version: references(version.body), matches) for reference in found}
    targets = {"/".join(target) for target in map(versioned_target, referenced) if target} - names
    shared = {target for target in targets if not catalog()[target.partition("/")[0]].subjects}
    versions: list[VisibleVersion] = []
    for type in sorted(of for of in {target.partition("/")[0] for target in shared} if wanted is None or of in wanted):
        ids = frozenset(target.partition("/")[2] for target in shared if target.startswith(type + "/"))
        versions += await view.find_included(type, IdIs(ids), len(ids))
    return versions
