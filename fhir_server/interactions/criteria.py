"""The criteria of conditional interactions and references (http://hl7.org/fhir/R4/http.html#cond-update, #ccreate).

They are a search of the caller's View: a hidden resource that they describe counts as absent.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, parse_query
from fhir_server.interactions.service import Service
from fhir_server.resources.server_base import server_base
from fhir_server.search import query

Pairs = Sequence[tuple[str, str]]
_FORMAT = ("_format", "_pretty")


def require_none(request: Request) -> None:
    """Require that the URL of a write has no search parameters, which would be ignored.  Raises Problem ``invalid``."""
    if any(name not in _FORMAT for name, _ in request.query):
        raise Problem("invalid", "This URL takes no search parameters; a conditional create sends them in If-None-Exist.")


def of_url(request: Request) -> Pairs:
    """The criteria in the URL of a conditional update, patch or delete.  Raises Problem ``invalid`` for none."""
    pairs = tuple(pair for pair in request.query if pair[0] not in _FORMAT)
    if not pairs:
        raise Problem("invalid", f"{request.method} of a type needs criteria, as in {request.method} {request.path[0]}?identifier=...")
    return pairs


def of_condition(type: str, condition: str, base: str) -> Pairs:
    """The search parameters of a condition: of ``criteria``, ``?criteria``, ``Type?criteria`` or ``[base]/Type?criteria``.

    Raises Problem ``invalid`` for none, and for a condition on another type.
    """
    text = server_base(base).relative(condition) or condition
    before, mark, after = text.partition("?")
    if mark and before in ("", type):
        text = after
    elif mark and "=" not in before:
        raise Problem("invalid", f"A condition for {type} is written {type}?criteria.")
    pairs = parse_query(text.encode())
    if not pairs:
        raise Problem("invalid", "A condition needs at least one search parameter.")
    return pairs


async def matching(view: View, type: str, pairs: Pairs, now: int, service: Service) -> VisibleVersion | None:
    """The visible resource that the criteria of a write match, or None.

    Raises Problem ``precondition`` for several, ``invalid`` for criteria without a search parameter, or ``forbidden``.
    """
    matches = await all_matching(view, type, pairs, now, service, 1)
    return matches[0] if matches else None


async def all_matching(view: View, type: str, pairs: Pairs, now: int, service: Service, limit: int) -> list[VisibleVersion]:
    """The visible resources that the criteria match.  Raises Problem ``precondition`` for more than ``limit``, and as above."""
    matches = await _first(view, type, pairs, now, service, limit + 1)
    if len(matches) > limit:
        raise Problem("precondition", "The criteria match several resources." if limit == 1 else f"The criteria match more than {limit}.")
    return matches


async def one_match(view: View, type: str, pairs: Pairs, reference: str, service: Service) -> str:
    """``Type/id`` of the one visible resource that the conditional reference ``reference`` matches.

    Raises Problem ``unprocessable`` for none and for several, ``invalid`` or ``forbidden``.
    """
    matches = await _first(view, type, pairs, view.now, service, 2)
    if len(matches) != 1:
        several = "several resources" if matches else "no resource"
        raise Problem("unprocessable", f"The reference {reference[:80]!r} matches {several}.")
    return f"{type}/{matches[0].id}"


async def _first(view: View, type: str, pairs: Pairs, now: int, service: Service, limit: int) -> list[VisibleVersion]:
    where = query.condition(type, pairs, now, service.base)
    view.permissions.require(type, "s")
    return (await view.find(type, where, limit=limit)).versions
