"""``Patient/{id}/$everything`` (http://hl7.org/fhir/R4/operation-patient-everything.html).

Reads the record type by type in the caller's View.  A page link contains the type and the position in it at which the next
page begins.  A resource belongs to the record by its deciding subject, so no reference leads into another person's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fhir_server.access.view import View, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, paged_parameters, preconditions
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.paged_parameters import PagedParameters
from fhir_server.interactions.service import Service
from fhir_server.resources import catalog, definitions
from fhir_server.resources.references import versioned_target
from fhir_server.search import query
from fhir_server.search.filters import AllOf, Filter, IdIs, OfPatient
from fhir_server.search.limits import require_searchable
from fhir_server.search.result_parameters import MAX_COUNT
from fhir_server.search.rows import Position
from fhir_server.writing.references import references

_PARAMETERS = frozenset({"start", "end", "_since", "_type", "_count", "_page", "_format", "_pretty"})
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
    require_searchable(request.query)
    await view.read(type, id)
    parameters = paged_parameters.read(view, request, service, _PARAMETERS, MAX_COUNT, least=1)
    matches, end = await _read_page(view, id, await _types(view, id, parameters.values), parameters, service)
    links = [("self", parameters.self_link)]
    if end is not None:
        links.append(("next", parameters.next_link(end)))
    entries = [bundle_json.entry(version, service.base) for version in matches]
    entries += [bundle_json.entry(version, service.base, "include") for version in await _find_referenced(view, matches)]
    return Response(200, bundle_json.searchset(entries, links=links), ((b"content-type", JSON),))


async def _types(view: View, patient: str, parameters: dict[str, str]) -> tuple[str, ...]:
    """The types to read, Patient first: those of the patient's resources that a scope covers.  Raises Problem ``invalid``."""
    wanted = set(parameters["_type"].split(",")) if parameters.get("_type") else None
    for name in sorted(wanted or ()):
        if name not in catalog():
            raise Problem("invalid", f"{name} is not a resource type of R4.")
    stored = await view.types_of_unfiltered(patient)
    readable = (name for name in stored if catalog()[name].subjects and view.permissions.scopes(name, "r"))
    return ("Patient", *sorted(name for name in readable if name != "Patient" and (wanted is None or name in wanted)))


class _Start(NamedTuple):
    """Where a page begins: in this type, after this position (None: at its first resource)."""

    type: str
    after: Position | None


def _start(position: Position | None) -> _Start:
    if position is None:
        return _Start("Patient", None)
    return _Start(str(position.keys[0]), Position((), position.id) if position.id else None)


async def _read_page(
    view: View, patient: str, types: Sequence[str], parameters: PagedParameters, service: Service
) -> tuple[list[VisibleVersion], Position | None]:
    """The resources of one page, and the position of the next page or None."""
    remaining, start = parameters.count, _start(parameters.position)
    matches: list[VisibleVersion] = []
    for type in [type for type in types if _rank(type) >= _rank(start.type)]:
        where = _condition(type, patient, parameters.values, view.now, service)
        if remaining == 0:
            if (await view.find_readable(type, where, limit=1, after=None)).versions:
                return matches, Position((type,), "")
            continue
        versions, end, _ = await view.find_readable(type, where, limit=remaining, after=start.after if type == start.type else None)
        matches, remaining = matches + versions, remaining - len(versions)
        if end is not None:
            return matches, Position((type,), end.id)
    return matches, None


def _rank(type: str) -> tuple[bool, str]:
    return type != "Patient", type


def _condition(type: str, patient: str, parameters: dict[str, str], now: int, service: Service) -> Filter:
    """The filter for the patient's resources of a type: by _since, and by start and end if the type has a date of care."""
    pairs = [("_lastUpdated", f"ge{parameters['_since']}")] if "_since" in parameters else []
    care_date = _care_date(type)
    if care_date is not None:
        pairs += [(care_date, prefix + parameters[name]) for name, prefix in (("start", "ge"), ("end", "le")) if name in parameters]
    filters: list[Filter] = [OfPatient(frozenset({patient}))]
    if pairs:
        filters.append(query.condition(type, pairs, now=now, base=service.base))
    return AllOf(tuple(filters))


def _care_date(type: str) -> str | None:
    dates = {parameter.code for parameter in definitions.search_parameters(type) if parameter.kind == "date"}
    return next((code for code in _CARE_DATES if code in dates), None)


async def _find_referenced(view: View, matches: Sequence[VisibleVersion]) -> list[VisibleVersion]:
    """The visible resources of no patient that the matches refer to: practitioners, locations, medications."""
    names = {f"{version.type}/{version.id}" for version in matches}
    referenced = references(b"\n".join([version.body for version in matches]))
    targets = {"/".join(target) for target in map(versioned_target, referenced) if target} - names
    shared = {target for target in targets if not catalog()[target.partition("/")[0]].subjects}
    versions: list[VisibleVersion] = []
    for type in sorted({target.partition("/")[0] for target in shared}):
        ids = frozenset(target.partition("/")[2] for target in shared if target.startswith(type + "/"))
        versions += await view.find_included(type, IdIs(ids), len(ids))
    return versions
