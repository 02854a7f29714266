"""``Patient/{id}/$everything`` by GET and POST (http://hl7.org/fhir/R4/operation-patient-everything.html).

Reads the record type by type in the caller's View.  A page link contains the type and the position in it at which the next
page begins.  A resource belongs to the record by its deciding subject, so no reference leads into another person's record.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server import budget
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, VisiblePage, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, paged_parameters, preconditions
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.parameters_body import parameters_in
from fhir_server.interactions.service import Service
from fhir_server.interactions.subset import SHAPING, shape_of, subset
from fhir_server.interactions.type_pages import read_page
from fhir_server.resources import catalog, definitions
from fhir_server.resources.references import versioned_target
from fhir_server.search import query
from fhir_server.search.filters import AllOf, AnyOf, Filter, IdIs, OfPatient
from fhir_server.search.limits import require_searchable
from fhir_server.search.result_parameters import MAX_COUNT
from fhir_server.search.rows import Position
from fhir_server.writing.references import references

_PARAMETERS = frozenset({"start", "end", "_since", "_type", "_count", "_elements", "_summary", "_page", "_format", "_pretty"})
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


async def everything(view: View, request: Request, service: Service) -> Response:
    """A searchset of the patient, the patient's record, and the shared resources (practitioners, medications) it refers to.

    Raises Problem ``forbidden``, ``not_found``, ``gone`` or ``invalid``.
    """
    type, id = request.path[:2]
    view.permissions.require("Patient", "r")
    preconditions.require_only(request)
    pairs = (*request.query, *parameters_in(request)) if request.method == "POST" else request.query
    require_searchable(pairs)
    shape = shape_of([pair for pair in pairs if pair[0] in SHAPING])
    await view.read(type, id)
    parameters = paged_parameters.read(view, request, service, pairs, _PARAMETERS, MAX_COUNT, least=1)

    async def find(type: str, limit: int, after: Position | None) -> VisiblePage:
        where = _condition(type, id, parameters.values, view.now, service)
        return await view.find_readable(type, where, limit=limit, after=after)

    types = await _types(view, id, parameters.values)
    matches, end = await read_page(types, parameters.count, parameters.position, find, first="Patient")
    links = [("self", parameters.self_link)]
    if end is not None:
        links.append(("next", parameters.next_link(end)))
    wanted = set(parameters.values["_type"].split(",")) if parameters.values.get("_type") else None
    referenced = await _find_referenced(view, matches, wanted)
    entries = await budget.each(lambda version: bundle_json.entry(version, service.base, body=subset(version.body, shape)), matches)
    entries += await budget.each(
        lambda version: bundle_json.entry(version, service.base, "include", subset(version.body, shape)), referenced
    )
    return Response(200, headers=((b"content-type", JSON),), parts=bundle_json.searchset(entries, links=links))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to read the patient.  Raises Problem ``forbidden``."""
    permissions.require(type, "r")


async def _types(view: View, patient: str, parameters: dict[str, str]) -> tuple[str, ...]:
    """The types to read: Patient, and those of the patient's resources that a scope covers; of those asked for, if any are.

    Raises Problem ``invalid``.
    """
    wanted = set(parameters["_type"].split(",")) if parameters.get("_type") else None
    for name in sorted(wanted or ()):
        if name not in catalog():
            raise Problem("invalid", f"{name} is not a resource type of R4.")
    stored = await view.types_of_unfiltered(patient)
    readable = (name for name in stored if catalog()[name].subjects and view.permissions.scopes(name, "r"))
    return tuple(name for name in {"Patient", *readable} if wanted is None or name in wanted)


def _condition(type: str, patient: str, parameters: dict[str, str], now: int, service: Service) -> Filter:
    """The filter for the patient's resources of a type: by _since, and by start and end for those with a date of care."""
    filters: list[Filter] = [OfPatient(frozenset({patient}))]
    if "_since" in parameters:
        filters.append(query.condition(type, [("_lastUpdated", f"ge{parameters['_since']}")], now=now, base=service.base))
    care_date = _care_date(type)
    bounds = [(prefix, parameters[name]) for name, prefix in (("start", "ge"), ("end", "le")) if name in parameters]
    if care_date and bounds:
        dated = query.condition(type, [(care_date, prefix + instant) for prefix, instant in bounds], now=now, base=service.base)
        undated = query.condition(type, [(f"{care_date}:missing", "true")], now=now, base=service.base)
        filters.append(AnyOf((dated, undated)))
    return AllOf(tuple(filters))


def _care_date(type: str) -> str | None:
    dates = {parameter.code for parameter in definitions.search_parameters(type) if parameter.kind == "date"}
    return next((code for code in _CARE_DATES if code in dates), None)


async def _find_referenced(view: View, matches: Sequence[VisibleVersion], wanted: set[str] | None) -> list[VisibleVersion]:
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
