"""Finds stored resources with references that the server no longer takes: a store may be older than a rule."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fhir_server import jsontext
from fhir_server.resources import catalog
from fhir_server.resources.references import parse_reference
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.rows import Position
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Store
from fhir_server.writing.references import found_references, references

_PAGE = 500


async def unreadable_references(store: Store) -> list[str]:
    """The ``Type/id`` of the current resources with a reference that is not one by R4, or that nothing can follow.

    A stored Bundle may refer to its own entries by URN.
    """
    return [f"{row.type}/{row.id}" async for row in _rows(store) if _has_unreadable_reference(row)]


async def _rows(store: Store) -> AsyncIterator[Row]:
    for type in sorted(catalog()):
        async with store.snapshot() as snapshot:
            visibility = Visibility.unrestricted(len(await snapshot.classes()))
            after: Position | None = None
            while True:
                page = await snapshot.find(type, EVERYTHING, visibility, limit=_PAGE, after=after)
                for row in page.rows:
                    yield row
                after = page.next
                if after is None:
                    break


def _has_unreadable_reference(row: Row) -> bool:
    followed = {"relative", "fragment", "absolute"} | ({"urn", "conditional"} if row.type == "Bundle" else set())
    suspects = {text for text in references(row.body) if (one := parse_reference(text)) is None or one.kind not in followed}
    if not suspects and b"\\" not in row.body:
        return False
    return any(
        (one := parse_reference(found.text)) is None or one.kind not in followed for found in found_references(jsontext.parse(row.body))
    )
