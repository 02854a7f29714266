"""``DocumentReference/$docref`` of US Core: references to a patient's documents (http://hl7.org/fhir/us/core/OperationDefinition/docref).

Without a period these are the newest of each type, with one all whose period of care, or else whose date, falls into it.  The server makes
no documents on demand.  A patient whom the caller does not see has no documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import preconditions
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.newest_by_code import newest_by_code, page
from fhir_server.interactions.parameters_body import parameters_in
from fhir_server.interactions.service import Service
from fhir_server.search import query as queries
from fhir_server.search.filters import AllOf, AnyOf, Filter
from fhir_server.search.result_parameters import MAX_COUNT

_TYPE = "DocumentReference"
_CONSIDERED = 10_000
_ONCE = frozenset({"patient", "start", "end", "on-demand"})
_SHAPING = frozenset({"_count", "_page", "_elements", "_summary"})
_KNOWN = _ONCE | _SHAPING | {"type", "_format", "_pretty"}


async def docref(view: View, request: Request, service: Service) -> Response:
    """A searchset of DocumentReferences, the newest first.  Raises Problem ``forbidden`` or ``invalid``."""
    admit(view.permissions, _TYPE)
    preconditions.require_only(request)
    pairs = (*request.query, *parameters_in(request)) if request.method == "POST" else request.query
    _require_known(pairs)
    given = dict(pairs)
    types = [value for name, value in pairs if name == "type"]
    searched = [("patient", given["patient"]), *([("type", ",".join(types))] if types else [])]
    searched += [pair for pair in pairs if pair[0] in _SHAPING]
    query = queries.parse((_TYPE,), searched, strict=True, now=request.now, base=service.base)
    if query.count and "_count" not in given:
        query = replace(query, count=MAX_COUNT)
    bounds = [(prefix, given[name]) for name, prefix in (("start", "ge"), ("end", "le")) if name in given]
    where = AllOf((query.where, _in_period(bounds, request.now, service.base))) if bounds else query.where
    newest = await newest_by_code(view, _TYPE, where, _CONSIDERED if bounds else 1, _CONSIDERED, code="type")
    applied = [pair for pair in pairs if pair[0] not in ("_format", "_pretty")]
    return Response(200, headers=((b"content-type", JSON),), parts=await page(view, service, query, newest, applied, f"{_TYPE}/$docref"))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to search DocumentReferences.  Raises Problem ``forbidden``."""
    permissions.require(type, "s")


def _require_known(pairs: Sequence[tuple[str, str]]) -> None:
    """Require the parameters that US Core defines and this server serves.  Raises Problem ``invalid``."""
    counted = Counter(name for name, _ in pairs)
    for name in counted:
        if name not in _KNOWN:
            raise Problem("invalid", f"$docref has no parameter {name!r} here.")
    if any(counted[name] > 1 for name in _ONCE) or not dict(pairs).get("patient"):
        raise Problem("invalid", "$docref takes one patient, and start, end and on-demand at most once each.")
    if any("," in value for name, value in pairs if name in _ONCE):
        raise Problem("invalid", "In $docref, patient, start and end are one value each.")
    if dict(pairs).get("on-demand", "false") != "false":
        raise Problem("invalid", "This server makes no documents on demand: on-demand can only be false.")


def _in_period(bounds: Sequence[tuple[str, str]], now: int, base: str) -> Filter:
    """The condition on the period of care, or without one on the date of the reference."""

    def where(*pairs: tuple[str, str]) -> Filter:
        return queries.condition(_TYPE, pairs, now, base)

    dated = [("date", prefix + instant) for prefix, instant in bounds]
    return AnyOf((where(*(("period", value) for _, value in dated)), where(("period:missing", "true"), *dated)))
