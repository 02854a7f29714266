"""A count on SQLite reads index entries and the short rows of ``res``, and never a resource: bodies are in a table of their own."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from fhir_server.store.sqlite import SqliteStore
from tests.served import Served, make_store, store_url

QUERIES = [
    "patient=adult",
    "subject=Patient/adult",
    "patient=adult&category=laboratory",
    "code=718-7",
    "date=ge2020",
    "status:not=preliminary",
    "",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = store_url("sqlite", tmp_path_factory.mktemp("store"))
    make_store(url)
    server = Served(url)
    yield server
    server.close()


def tables_read(served: Served, token: str, query: str) -> set[str]:
    """The tables with a column that a statement of the request reads."""
    store = served.parts.store
    assert isinstance(store, SqliteStore)
    for snapshot in store._idle:
        snapshot.connection.close()
    store._idle.clear()  # whose statements are compiled
    read: set[str] = set()

    def note(operation: int, table: str | None, *_: str | None) -> int:
        if operation == apsw.SQLITE_READ and table:
            read.add(table)
        return apsw.SQLITE_OK

    snapshot = store.borrow_snapshot()
    snapshot.connection.authorizer = note
    store.return_snapshot(snapshot)
    assert served.get(token, f"Observation?{query}").status == 200
    return read


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("caller", ["backend", "app"])
def test_a_count_reads_no_resource(served: Served, caller: str, query: str) -> None:
    token = served.token() if caller == "backend" else served.app_token("adult", "adult")
    served.get(token, "Observation?_summary=count")  # permissions are cached, for which a grant may have to be read
    read = tables_read(served, token, query + "&_summary=count")
    assert read and read.isdisjoint({"body", "past"})
    assert "body" in tables_read(served, token, query + "&_count=5")  # the control
