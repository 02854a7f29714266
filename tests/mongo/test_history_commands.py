"""On MongoDB, a page of a history and a version by number take as many commands with hundreds of versions as with some."""

from __future__ import annotations

import asyncio
from typing import Any

from fhir_server.store.mongodb import MongoStore
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.store.histories import CALLER, alike, visible_history_of
from tests.store.samples import put


def _commands(last: int, hidden: frozenset[int] = frozenset()) -> dict[str, tuple[int, list[int]]]:
    """For what a caller asks of a row with so many versions: how many queries it takes, and the stored versions it returns."""
    url, listener = fresh_url(), Listener()

    async def run() -> dict[str, tuple[int, list[int]]]:
        store = MongoStore(url, event_listeners=[listener])
        await put(store, *alike(last, hidden))
        counted = {}
        for name in ("page", "first"):
            async with store.snapshot() as snapshot:
                history = visible_history_of(snapshot, "a", CALLER)
                listener.commands.clear()
                found: Any = await history.page(10) if name == "page" else await history.find(1)
                versions = [row.version for row in found.rows] if name == "page" else [found.version]
            counted[name] = len(listener.of("find", "aggregate")), versions
        await store.close()
        return counted

    return asyncio.run(run())


def test_many_versions_take_the_commands_of_few() -> None:
    few, many = _commands(60), _commands(400)
    assert {name: count for name, (count, _) in few.items()} == {name: count for name, (count, _) in many.items()}
    assert many["page"][1] == list(range(400, 390, -1)) and many["first"][1] == [1]
    assert many["page"][0] <= 8 and many["first"][0] <= 10


def test_hidden_versions_take_no_commands() -> None:
    none, some = _commands(60), _commands(90, frozenset(range(60, 80)))
    assert {name: count for name, (count, _) in none.items()} == {name: count for name, (count, _) in some.items()}
    assert some["page"][1] == list(range(90, 80, -1))
