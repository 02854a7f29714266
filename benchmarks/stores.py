"""Stores of a given size, filled through the server's own write path; SQLite's are kept in ``.cache/`` for later runs."""

from __future__ import annotations

import asyncio
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
from fhir_server.maintenance.input_files import Item, Unit, files, units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.settings import Settings
from fhir_server.smart.accounts import users
from fhir_server.smart.tokens import tokens
from fhir_server.store.sqlite.schema import prepare

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "benchmarks"
_UNIT = 1000  # resources stored in one transaction


def store_of(rows: int) -> Path:
    """A fresh copy of the store with about ``rows`` resources; the copy is the caller's to write to and remove."""
    kept = CACHE / f"store-{rows}-{seed.VERSION}-{_schema()}.sqlite"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        remove(building := kept.with_suffix(".building"))
        asyncio.run(fill(url_of(building), rows))
        building.rename(kept)
    copy = CACHE / f"run-{rows}.sqlite"
    remove(copy)
    shutil.copyfile(kept, copy)
    return copy


def _schema() -> str:
    """A digest of the tables a store of today has: one that was filled under others is not used."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(path := Path(folder) / "empty.sqlite")
        with sqlite3.connect(path) as connection:
            tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        connection.close()
    return sha256(repr(tables).encode()).hexdigest()[:8]


def remove(path: Path) -> None:
    """Remove a store's file and those beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def settings(store: str, port: int = 8000) -> Settings:
    """The settings of a server on the store at this URL."""
    return Settings(store=store, origin=f"http://127.0.0.1:{port}", mode="test", secret_key="k" * 40)


async def fill(store: str, rows: int) -> None:
    """Fill the empty store at this URL with about ``rows`` resources."""
    made = build_components(settings(store))
    await made.prepare()
    await _people(made)
    loader, tally = Loader(made.store, made.labeler, made.settings.base, made.clock), LoadReport()
    started = time.monotonic()
    for file in files((ROOT / "seed_bundles",)):
        for unit in units(file, b"benchmark", date.today()):
            await loader.load(unit, tally)
    for unit in _units(rows):
        await loader.load(unit, tally)
        rate = tally.stored / (time.monotonic() - started)
        print(f"\rfilling {tally.stored:,} of {rows:,} ({rate:,.0f} a second)  ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if tally.rejects:
        raise RuntimeError(f"a made-up resource was refused: {tally.rejects[0].decode()}")
    await made.close()


def _units(rows: int) -> Iterator[Unit]:
    grants = chain.from_iterable(seed.proxy(patient) for patient in seed.SHARED)
    made = chain(chain.from_iterable(seed.record(*one) for one in seed.patients(rows)), grants)
    items: list[Item] = []
    for resource in made:
        items.append(Item("", resource["id"], seed.text(resource)))
        if len(items) == _UNIT:
            yield Unit(Path("benchmark"), False, items, 0)
            items = []
    yield Unit(Path("benchmark"), False, items, 0)


async def _people(made: Components) -> None:
    for patient in seed.SELVES:
        await users.create(made.store, patient, "a-long-password-1", "patient", patient=patient)
    for patient in seed.SHARED:
        await users.create(made.store, f"proxy-of-{patient}", "a-long-password-1", "patient", related_persons=(f"proxy-of-{patient}",))


async def access_tokens(store: str) -> dict[str, str]:
    """Access tokens good for an hour: an app's for each watched patient's record (by patient id), and the backend's ("backend")."""
    made = build_components(settings(store))
    await made.store.prepare()
    now = made.clock()

    async def app(username: str, patient: str) -> str:
        return await tokens.issue_operator_token(made.store, "demo-public", "patient/*.rs", now, username=username, patient=patient)

    try:
        found = {patient: await app(patient, patient) for patient in seed.SELVES}
        found |= {patient: await app(f"proxy-of-{patient}", patient) for patient in seed.SHARED}
        found["backend"] = await tokens.issue_operator_token(made.store, "demo-backend", "system/*.cruds", now)
        return found
    finally:
        await made.close()
