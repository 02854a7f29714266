"""``Patient/{id}/$everything`` (http://hl7.org/fhir/R4/operation-patient-everything.html).

The record is walked type by type in the caller's View; a page link says in which type, and behind which row, to go on.
Rows belong by their deciding subject, so nothing follows a reference into another person's record.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.access.view import View, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.search import binding, next_link
from fhir_server.interactions.service import Service
from fhir_server.resources import catalog, definitions
from fhir_server.search import query
from fhir_server.search.filters import AllOf, Filter, IdIs, OfPatient
from fhir_server.search.rows import Position
from fhir_server.writing.references import is_local, references

_PARAMETERS = frozenset({"start", "end", "_since", "_type", "_count", "_page", "_format", "_pretty"})
_MOST = 1000
# The parameter that says when care took place, in the order of preference.
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
    """A searchset of the patient, the patient's record, and the directory and medication rows it refers to."""
    type, id = request.path[:2]
    view.permissions.require("Patient", "r")
    await view.read(type, id)
    asked = dict(request.query)
    unknown = sorted(set(asked) - _PARAMETERS)
    if unknown and request.preference("handling", "lenient") == "strict":
        raise Problem("invalid", f"$everything has no parameter {unknown[0]}.")
    applied = [(name, value) for name, value in request.query if name in _PARAMETERS and name != "_page"]
    path = f"{type}/{id}/$everything"
    bound = binding(view, service, path, applied)
    start = _start(service.cursors.decrypt(asked["_page"], bound) if "_page" in asked else None)
    found, end = await _walk(view, id, await _types(view, id, asked), asked, start, service)
    links = [("self", bundle_json.address(service.base, path, applied))]
    if end is not None:
        links.append(("next", next_link(service, path, applied, end, bound)))
    entries = [bundle_json.entry(seen, service.base) for seen in found]
    entries += [bundle_json.entry(seen, service.base, "include") for seen in await _referenced_by(view, found)]
    return Response(200, bundle_json.searchset(entries, links=links), ((b"content-type", JSON),))


async def _types(view: View, patient: str, asked: dict[str, str]) -> tuple[str, ...]:
    """The types to walk, Patient first: those of which the patient has rows, and that a scope covers."""
    wanted = set(asked["_type"].split(",")) if asked.get("_type") else None
    for name in sorted(wanted or ()):
        if name not in catalog():
            raise Problem("invalid", f"{name} is not a resource type of R4.")
    stored = await view.types_of_unfiltered(patient)
    owned = (name for name in stored if catalog()[name].subjects and view.permissions.scopes(name, "r"))
    return ("Patient", *sorted(name for name in owned if name != "Patient" and (wanted is None or name in wanted)))


def _start(position: Position | None) -> tuple[str, Position | None]:
    if position is None:
        return "Patient", None
    return str(position.keys[0]), Position((), position.id) if position.id else None


async def _walk(
    view: View, patient: str, types: Sequence[str], asked: dict[str, str], start: tuple[str, Position | None], service: Service
) -> tuple[list[VisibleVersion], Position | None]:
    room = _count(asked)
    first, after = start
    found: list[VisibleVersion] = []
    for type in [type for type in types if _rank(type) >= _rank(first)]:
        where = _condition(type, patient, asked, view.now, service)
        if room == 0:
            if (await view.find_readable(type, where, limit=1, after=None)).versions:
                return found, Position((type,), "")
            continue
        rows, end, _ = await view.find_readable(type, where, limit=room, after=after if type == first else None)
        found, room = found + rows, room - len(rows)
        if end is not None:
            return found, Position((type,), end.id)
    return found, None


def _rank(type: str) -> tuple[bool, str]:
    return type != "Patient", type


def _count(asked: dict[str, str]) -> int:
    text = asked.get("_count", str(_MOST))
    if not text.isdecimal() or int(text) == 0:
        raise Problem("invalid", "_count is a whole number above 0.")
    return min(int(text), _MOST)


def _condition(type: str, patient: str, asked: dict[str, str], now: int, service: Service) -> Filter:
    pairs = [("_lastUpdated", f"ge{asked['_since']}")] if "_since" in asked else []
    dated = _care_date(type)
    if dated is not None:
        pairs += [(dated, prefix + asked[name]) for name, prefix in (("start", "ge"), ("end", "le")) if name in asked]
    parts: list[Filter] = [OfPatient(frozenset({patient}))]
    if pairs:
        parts.append(query.condition(type, pairs, now=now, base=service.base))
    return AllOf(tuple(parts))


def _care_date(type: str) -> str | None:
    dates = {parameter.code for parameter in definitions.search_parameters(type) if parameter.kind == "date"}
    return next((code for code in _CARE_DATES if code in dates), None)


async def _referenced_by(view: View, found: Sequence[VisibleVersion]) -> list[VisibleVersion]:
    """The rows of no patient that what was found refers to: practitioners, places, medications."""
    names = {f"{seen.type}/{seen.id}" for seen in found}
    written = references(b"\n".join([seen.body for seen in found]))
    targets = {target for target in written - names if is_local(target)}
    common = {target for target in targets if not catalog()[target.partition("/")[0]].subjects}
    extras: list[VisibleVersion] = []
    for type in sorted({target.partition("/")[0] for target in common}):
        ids = frozenset(target.partition("/")[2] for target in common if target.startswith(type + "/"))
        extras += await view.find_included(type, IdIs(ids), len(ids))
    return extras
