"""Concurrent transactions that only read the same data do not conflict: each uses its own slot of every lock."""

from __future__ import annotations

import asyncio

from fhir_server.store.mongodb import MongoStore
from fhir_server.store.mongodb.locks import SLOTS
from fhir_server.store.mongodb.retry import _MAX_RUNNING, TransactionRunner
from fhir_server.store.mongodb.transaction import MongoTransaction
from tests.mongo.shared_mongod import fresh_url

MANY = 60


def test_concurrent_transactions_use_distinct_slots() -> None:
    running: list[int] = []
    most = 0

    async def job(tx: MongoTransaction) -> None:
        nonlocal most
        assert tx._slot not in running
        running.append(tx._slot)
        most = max(most, len(running))
        await tx.classes()
        running.remove(tx._slot)

    async def all_at_once() -> None:
        store = MongoStore(fresh_url())
        await store.prepare()
        await asyncio.gather(*(store.write(job) for _ in range(MANY)))
        await store.close()

    asyncio.run(all_at_once())
    assert most == _MAX_RUNNING < SLOTS


def test_slot_is_released_after_a_failed_transaction() -> None:
    async def failing(tx: MongoTransaction) -> None:
        raise KeyError(tx._slot)

    async def one_after_the_other() -> set[int]:
        store = MongoStore(fresh_url())
        await store.prepare()
        seen = set()
        for _ in range(SLOTS + 1):
            try:
                await store.write(failing)
            except KeyError as error:
                seen.add(error.args[0])
        await store.close()
        return seen

    assert len(asyncio.run(one_after_the_other())) == 1  # the slot released last is used next


def test_each_runner_orders_slots_differently() -> None:
    store = MongoStore(fresh_url())
    assert len({tuple(TransactionRunner(store.connection)._slots) for _ in range(3)}) == 3
