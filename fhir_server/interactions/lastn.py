"""``Observation/$lastn`` by GET and POST (http://hl7.org/fhir/R4/observation-operation-lastn.html).

The newest ``max`` Observations of each code among those that the caller's search finds.  Which these are is read from the index;
bodies are read for the page alone.  Hidden rows and elements are no part of the index that the View reads, so they make no group,
join none and take no place.
"""

from __future__ import annotations

import re
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
from fhir_server.search.limits import whole_number
from fhir_server.search.result_parameters import MAX_COUNT

MAX_CONSIDERED = 10_000
"""Observations among which the newest are chosen, at most."""

_TYPE = "Observation"
_SUBJECTS = frozenset({"patient", "subject"})
_UNSERVED = frozenset({"_sort", "_total"})


async def lastn(view: View, request: Request, service: Service) -> Response:
    """A searchset of the newest Observations of each code, from the most recent to the oldest.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    admit(view.permissions, _TYPE)
    preconditions.require_only(request)
    pairs = (*request.query, *parameters_in(request)) if request.method == "POST" else request.query
    most = _most([value for name, value in pairs if name == "max"])
    searched = [pair for pair in pairs if pair[0] != "max"]
    _require_criteria(searched)
    query = queries.parse((_TYPE,), searched, strict=service.is_strict(request), now=request.now, base=service.base)
    if query.count and not any(name == "_count" for name, _ in searched):
        query = replace(query, count=MAX_COUNT)
    newest = await newest_by_code(view, _TYPE, query.where, most, MAX_CONSIDERED)
    parts = await page(view, service, query, newest, [("max", str(most)), *query.applied], f"{_TYPE}/$lastn")
    return Response(200, headers=((b"content-type", JSON), *service.applied_preference(request)), parts=parts)


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to search Observations.  Raises Problem ``forbidden``."""
    permissions.require(type, "s")


def _most(values: Sequence[str]) -> int:
    most = whole_number(values[0]) if values else 1
    if not most or len(values) > 1:
        raise Problem("invalid", "max is one whole number, 1 or more.")
    return most


def _require_criteria(pairs: Sequence[tuple[str, str]]) -> None:
    """Require what R4 requires of the search: a subject, and a category or code.  Raises Problem ``invalid``."""
    for name, _ in pairs:
        if name in _UNSERVED:
            raise Problem("invalid", f"$lastn has no parameter {name!r}: it has an order and a total of its own.")
    given = {re.split("[:.]", name)[0] for name, value in pairs if value and not name.endswith((":missing", ":not", ":not-in"))}
    if not given & _SUBJECTS:
        raise Problem("invalid", "$lastn needs a patient or a subject.")
    if "category" not in given and not any("code" in code.split("-") for code in given):
        raise Problem("invalid", "$lastn needs a category, a code or another parameter with a code.")
