"""A copy names everything that the target cannot keep before it copies anything."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from pymongo import MongoClient

from fhir_server.cli import main
from fhir_server.store import IndexedRow, open_store
from fhir_server.store.copying import copy_source
from tests.mongo.shared_mongod import fresh_url
from tests.store.samples import drop, put, record

_MEGABYTE = 1024 * 1024


def _sized(id: str, version: int, megabytes: int) -> IndexedRow:
    return record(id, "p1", version=version, body=b'{"data":"' + b"x" * (megabytes * _MEGABYTE) + b'"}')


def _source(path: Path, *rows: IndexedRow) -> str:
    url = f"sqlite:///{path}"

    async def fill() -> None:
        store = open_store(url)
        await put(store, *rows)
        await drop(store, rows[-1].row.id)
        await store.close()

    asyncio.run(fill())
    return url


def test_all_versions_that_do_not_fit_are_named_and_nothing_copied(tmp_path: Path) -> None:
    rows = [record("small", "p1"), _sized("now", 1, 17), _sized("fits", 1, 15), _sized("past", 1, 1), _sized("past", 2, 18)]
    source, target = _source(tmp_path / "x.db", *rows, record("past", "p1", version=3)), fresh_url()
    refused = CliRunner().invoke(main, ["copy-store", source, target])
    assert refused.exit_code == 1 and "Nothing was copied. 2 versions are too large" in refused.output
    assert "Observation/now, stored version 1 (17.0 MB); Observation/past, stored version 2 (18.0 MB)." in refused.output
    assert "fits" not in refused.output
    with MongoClient[dict[str, Any]](target) as client:
        database = client.get_default_database()
        assert database["resources"].count_documents({}) == database["history"].count_documents({}) == 0
        assert database["counters"].find_one({"_id": "moving"}) is None


def test_large_versions_that_fit_are_copied(tmp_path: Path) -> None:
    source = _source(tmp_path / "x.db", _sized("a", 1, 15), record("a", "p1", version=2))
    copied = CliRunner().invoke(main, ["copy-store", source, fresh_url()])
    assert copied.exit_code == 0 and "Copied and compared: " in copied.output, copied.output


def test_both_stores_name_their_large_resources(tmp_path: Path) -> None:
    rows = [record("small", "p1"), _sized("now", 1, 2), _sized("past", 1, 2), record("past", "p1", version=2)]
    source, target = _source(tmp_path / "x.db", *rows), fresh_url()
    assert CliRunner().invoke(main, ["copy-store", source, target]).exit_code == 0

    async def large(url: str) -> Any:
        store = open_store(url)
        await store.prepare()
        side = copy_source(url.partition(":")[0], store)
        found = await side.large_resources(_MEGABYTE)
        versions = [(one.type, one.id, len(one.versions)) for one in [await side.history(*name) for name in found]]
        await store.close()
        return versions

    assert asyncio.run(large(source)) == asyncio.run(large(target)) == [("Observation", "now", 1), ("Observation", "past", 3)]
