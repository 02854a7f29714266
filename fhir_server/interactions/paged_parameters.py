"""Parameters of the interactions besides search that answer in pages: histories and ``$everything``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json
from fhir_server.interactions.messages import Request
from fhir_server.interactions.search import binding, next_link
from fhir_server.interactions.service import Service
from fhir_server.search.limits import whole_number
from fhir_server.search.result_parameters import MAX_COUNT
from fhir_server.search.rows import Position
from fhir_server.search.suggestions import suggestion


@dataclass(frozen=True, slots=True)
class PagedParameters:
    """The parameters of a request, and where its page begins.

    ``values``    parameter -> value; those of one that is repeated are joined by commas
    ``position``  where the page begins; None: at the beginning
    ``count``     resources on a page
    ``self_link`` URL of this page without its position
    ``next_link`` makes the URL of the page that begins at a position
    """

    values: dict[str, str]
    position: Position | None
    count: int
    self_link: str
    next_link: Callable[[Position], str]


def read(
    view: View,
    request: Request,
    service: Service,
    pairs: Sequence[tuple[str, str]],
    known: frozenset[str],
    default_count: int,
    least: int = 0,
) -> PagedParameters:
    """Read the parameters ``pairs`` of a request whose path ends in the name of the interaction.

    ``known``  parameters that the interaction has; others are refused, or ignored with ``Prefer: handling=lenient``
    ``least``  the smallest ``_count``

    Raises Problem ``invalid``.
    """
    path, values = "/".join(request.path), _joined(pairs)
    unknown = sorted(set(values) - known)
    if unknown and service.is_strict(request):
        raise Problem("invalid", f"{request.path[-1]} has no parameter {unknown[0]!r}.{suggestion(unknown[0], known)}")
    applied = [(name, value) for name, value in values.items() if name in known and name != "_page"]
    bound = binding(view, service, path, applied)
    count = whole_number(values.get("_count", str(default_count)))
    if count is None or count < least:
        raise Problem("invalid", f"_count must be a whole number, {least} or more.")
    return PagedParameters(
        values,
        service.cursors.decrypt(values["_page"], bound) if "_page" in values else None,
        min(count, MAX_COUNT),
        bundle_json.query_url(service.base, path, applied),
        lambda position: next_link(service, path, applied, position, bound),
    )


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters by name; the values of a repeated one are a list, as ``_type`` may be in a Parameters resource."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
