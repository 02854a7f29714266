"""``fhir-server export``: write the whole store as NDJSON, for the operator of the machine that holds it."""

from __future__ import annotations

from pathlib import Path

from fhir_server.resources import catalog
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from fhir_server.store import Store

_PAGE = 1000


async def export_store(store: Store, folder: Path) -> dict[str, int]:
    """Write ``Type.ndjson`` for every type that has rows.  Return the number of rows by type.

    Each file is one consistent snapshot.  It holds every current row, whatever its visibility class: protect the folder
    as you protect the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for type in sorted(catalog()):
        written = await _export_type(store, type, folder / f"{type}.ndjson")
        if written:
            counts[type] = written
    return counts


async def _export_type(store: Store, type: str, path: Path) -> int:
    written = 0
    async with store.snapshot() as snapshot:
        visibility = Visibility.unrestricted(len(await snapshot.classes()))
        page = await snapshot.find(type, EVERYTHING, visibility, limit=_PAGE)
        if not page.rows:
            return 0
        with path.open("wb") as file:
            while True:
                file.writelines(row.body + b"\n" for row in page.rows)
                written += len(page.rows)
                if page.next is None:
                    return written
                page = await snapshot.find(type, EVERYTHING, visibility, limit=_PAGE, after=page.next)
