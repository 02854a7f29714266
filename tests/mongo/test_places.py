"""The place of a row follows from the time that the whole cluster shares, not from the clock of the server that stored it."""

from __future__ import annotations

import asyncio
import time

import pytest

from fhir_server.search.filters import EVERYTHING
from fhir_server.store.mongodb import MongoStore
from tests.mongo.shared_mongod import fresh_url
from tests.store.samples import OBS, clause, put, record, visibility


def test_servers_with_different_clocks_store_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    url, exact = fresh_url(), time.time_ns
    behind = {0: 0, 1: 300_000_000_000}

    async def walk() -> list[str]:
        servers = [MongoStore(url), MongoStore(url)]
        for number in range(8):
            which = number % 2
            monkeypatch.setattr(time, "time_ns", lambda lag=behind[which]: exact() - lag)
            await put(servers[which], record(f"r{number}", "p1"))
        async with servers[0].snapshot() as snapshot:
            page = await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), limit=100)
        for server in servers:
            await server.close()
        return [row.id for row in page.rows]

    assert asyncio.run(walk()) == [f"r{number}" for number in range(8)]
