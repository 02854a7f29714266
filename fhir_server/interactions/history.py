"""The history of a resource, of a type and of the whole server (http://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import tzinfo
from typing import Final

from fhir_server.access.view import View
from fhir_server.access.visible_changes import EntryKey, HistoryPeriod, entry_key
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, paged_parameters, preconditions
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.paged_parameters import PagedParameters
from fhir_server.interactions.service import Service
from fhir_server.resources import catalog
from fhir_server.search.filters import EVERYTHING, IdIs
from fhir_server.search.parameter_types.date import interval
from fhir_server.search.rows import STALE_LINK, Position
from fhir_server.search.zones import zone_of

_PARAMETERS: Final = frozenset({"_count", "_since", "_at", "_sort", "_page", "_format", "_pretty"})
_DEFAULT_COUNT: Final = 50
_NEWEST_FIRST, _OLDEST_FIRST = "-_lastUpdated", "_lastUpdated"


async def of_resource(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history?_count=&_since=&_at=&_sort=``: the visible versions, in pages.

    Raises Problem ``forbidden``, ``not_found`` or ``invalid``.
    """
    type, id = request.path[:2]
    view.permissions.require(type, "r")
    parameters = _read_parameters(view, request, service)
    period = _period(parameters.values, zone_of(service.base))
    if period.ascending or period.current is not None:
        return await _page(view, service, parameters, period, (type,), id)
    before = _number(parameters.position, id) if parameters.position is not None else None
    versions, end, total = await view.history(type, id, parameters.count, before, period.since)
    more = Position((end,), id) if end is not None and parameters.count > 0 else None
    return _answer(service, parameters, versions, more, total)


async def of_type(view: View, request: Request, service: Service) -> Response:
    """``GET Type/_history``, with the same parameters: the visible versions and deletions of all resources of the type.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    view.permissions.require(request.path[0], "r")
    parameters = _read_parameters(view, request, service)
    return await _page(view, service, parameters, _period(parameters.values, zone_of(service.base)), request.path[:1])


async def of_system(view: View, request: Request, service: Service) -> Response:
    """``GET _history``, with the same parameters: those of all types that a scope covers.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    types = sorted(type for type in catalog() if view.permissions.scopes(type, "r"))
    if not types:
        raise Problem("forbidden", "The scopes of this access token do not cover reading.")
    parameters = _read_parameters(view, request, service)
    return await _page(view, service, parameters, _period(parameters.values, zone_of(service.base)), types)


def _read_parameters(view: View, request: Request, service: Service) -> PagedParameters:
    preconditions.require_only(request)
    return paged_parameters.read(view, request, service, request.query, _PARAMETERS, _DEFAULT_COUNT)


def _period(values: dict[str, str], zone: tzinfo) -> HistoryPeriod:
    """Which versions are wanted; ``zone``: of dates without one.  Raises Problem ``invalid``."""
    order = values.get("_sort", _NEWEST_FIRST)
    if order not in (_NEWEST_FIRST, _OLDEST_FIRST):
        raise Problem("invalid", f"A history has no order {order!r}. Valid values of _sort: {_NEWEST_FIRST}, {_OLDEST_FIRST}.")
    since, current = _interval(values, "_since", "an instant", zone), _interval(values, "_at", "a date or an instant", zone)
    return HistoryPeriod(since[0] if since else 0, current, order == _OLDEST_FIRST)


def _interval(values: dict[str, str], name: str, what: str, zone: tzinfo) -> tuple[int, int] | None:
    try:
        return interval(values[name], zone) if name in values else None
    except ValueError:
        raise Problem("invalid", f"{name} must be {what}.") from None


async def _page(
    view: View, service: Service, parameters: PagedParameters, period: HistoryPeriod, types: Collection[str], id: str | None = None
) -> Response:
    after: EntryKey | None = entry_key(parameters.position) if parameters.position is not None else None
    where = EVERYTHING if id is None else IdIs(frozenset({id}))
    versions, end, total = await view.changes(types, parameters.count, period, after, where)
    return _answer(service, parameters, versions, end.position() if end else None, total)


def _answer(
    service: Service, parameters: PagedParameters, versions: list[VisibleVersion], more: Position | None, total: int | None
) -> Response:
    links = [("self", parameters.self_link)]
    if more is not None:
        links.append(("next", parameters.next_link(more)))
    return Response(200, headers=((b"content-type", JSON),), parts=bundle_json.history(versions, service.base, links, total))


def _number(position: Position, id: str) -> int:
    """The version number in a page link."""
    (number,) = position.keys if len(position.keys) == 1 and position.id == id else (None,)
    if not isinstance(number, int):
        raise Problem("invalid", STALE_LINK)
    return number
