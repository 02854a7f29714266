"""A page of resources of several types, type by type: of ``$everything``, and of a search of several types.

A position holds the type, and the place in it after which the next page begins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fhir_server.access.visible_versions import VisiblePage, VisibleVersion
from fhir_server.search.rows import Position

Find = Callable[[str, int, Position | None], Awaitable[VisiblePage]]
"""Finds resources of a type: at most so many, after this position (None: from the first on)."""


async def read_page(
    types: Sequence[str], limit: int, start: Position | None, find: Find, *, first: str = ""
) -> tuple[list[VisibleVersion], Position | None]:
    """The resources of one page, and the position of the next page or None.

    Types come in the order of their names, after ``first``.
    """
    remaining = limit
    matches: list[VisibleVersion] = []
    begin, after = _place(start)
    for type in sorted(types, key=lambda type: (type != first, type)):
        if begin and (type != first, type) < (begin != first, begin):
            continue
        if remaining == 0:
            if (await find(type, 1, None)).versions:
                return matches, Position((type,), "")
            continue
        versions, end, _ = await find(type, remaining, after if type == begin else None)
        matches, remaining = matches + versions, remaining - len(versions)
        if end is not None:
            return matches, Position((type, *end.keys), end.id)
    return matches, None


def _place(start: Position | None) -> tuple[str, Position | None]:
    """The type at which a page begins ("": the first), and the position in it."""
    if start is None:
        return "", None
    type, *keys = start.keys
    return str(type), Position(tuple(keys), start.id) if keys or start.id else None
