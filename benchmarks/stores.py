"""Creates stores of a given size through the server's own write path.  SQLite stores are cached in ``.cache/`` for later runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from itertools import chain
from pathlib import Path

from benchmarks import seed
from fhir_server.app import Components, build_components
from fhir_server.maintenance.input_files import Item, Unit, list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.settings import Settings
from fhir_server.smart.accounts import users
from fhir_server.smart.tokens import tokens
from fhir_server.store.sqlite.schema import prepare

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "benchmarks"
_UNIT = 1000  # resources stored in one transaction


def copy_of_size(rows: int) -> Path:
    """Return a new copy of the store with about ``rows`` resources.  The caller may write to it and must remove it."""
    cached = CACHE / f"store-{rows}-{seed.VERSION}-{_schema()}.sqlite"
    if not cached.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        remove(building := cached.with_suffix(".building"))
        asyncio.run(fill(sqlite_url(building), rows))
        building.rename(cached)
    copy = CACHE / f"run-{rows}-{os.getpid()}.sqlite"  # other runs have copies of their own
    remove(copy)
    shutil.copyfile(cached, copy)
    return copy


def _schema() -> str:
    """Return a digest of the current tables, so that a cached store with other tables is not used."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(path := Path(folder) / "empty.sqlite")
        with sqlite3.connect(path) as connection:
            tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        connection.close()
    return sha256(repr(tables).encode()).hexdigest()[:8]


def remove(path: Path) -> None:
    """Remove a store's file and its write-ahead log."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def settings(store: str, port: int = 8000) -> Settings:
    """Return the settings of a server on the store at this URL."""
    return Settings(store=store, origin=f"http://127.0.0.1:{port}", mode="test", secret_key="k" * 40)


async def fill(store: str, rows: int) -> None:
    """Fill the empty store at this URL with about ``rows`` resources."""
    components = build_components(settings(store))
    await components.prepare()
    await _create_users(components)
    loader, report = Loader(components.store, components.labeler, components.settings.base, components.clock), LoadReport()
    started = time.monotonic()
    for file in list_files((ROOT / "seed_bundles",)):
        for unit in read_units(file, b"benchmark", date.today()):
            await loader.load(unit, report)
    for unit in _units(rows):
        await loader.load(unit, report)
        rate = report.stored / (time.monotonic() - started)
        print(f"\rfilling {report.stored:,} of {rows:,} ({rate:,.0f} a second)  ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if report.rejects:
        raise RuntimeError(f"a generated resource was rejected: {report.rejects[0].decode()}")
    await components.close()


def _units(rows: int) -> Iterator[Unit]:
    grants = chain.from_iterable(seed.proxy(patient) for patient in seed.SHARED_PATIENTS)
    resources = chain(chain.from_iterable(seed.record(*patient) for patient in seed.patients(rows)), grants)
    items: list[Item] = []
    for resource in resources:
        items.append(Item("", resource["id"], seed.text(resource)))
        if len(items) == _UNIT:
            yield Unit(Path("benchmark"), False, items, 0)
            items = []
    yield Unit(Path("benchmark"), False, items, 0)


async def _create_users(components: Components) -> None:
    for patient in seed.SELF_PATIENTS:
        await users.create(components.store, patient, "a-long-password-1", "patient", patient=patient)
    for patient in seed.SHARED_PATIENTS:
        await users.create(
            components.store, f"proxy-of-{patient}", "a-long-password-1", "patient", related_persons=(f"proxy-of-{patient}",)
        )


async def access_tokens(store: str) -> dict[str, str]:
    """Return access tokens that are valid for an hour: for each watched patient (by id) an app's, and the "backend"."""
    components = build_components(settings(store))
    await components.store.prepare()
    now = components.clock()

    async def app(username: str, patient: str) -> str:
        return await tokens.issue_operator_token(components.store, "demo-public", "patient/*.rs", now, username=username, patient=patient)

    try:
        found = {patient: await app(patient, patient) for patient in seed.SELF_PATIENTS}
        found |= {patient: await app(f"proxy-of-{patient}", patient) for patient in seed.SHARED_PATIENTS}
        found["backend"] = await tokens.issue_operator_token(components.store, "demo-backend", "system/*.cruds", now)
        return found
    finally:
        await components.close()
