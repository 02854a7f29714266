"""Key-value records are redeemed once, expire, and are deleted by family.  Logs keep their lines in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.store import KeyValueRecord, LogEntry, Store
from fhir_server.store.logs import PurgedLine, unlinked
from tests.store.conftest import RunScenario


def test_concurrent_pops_return_the_value_once(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        for number in range(5):
            assert await store.key_values.put_if_absent("code", f"k{number}", b"value", 2**62)
            taken = await asyncio.gather(*(store.key_values.pop("code", f"k{number}", 0) for _ in range(64)))
            assert sorted(one for one in taken if one) == [b"value"]
            assert await store.key_values.get("code", f"k{number}", 0) is None

    run(scenario)


def test_concurrent_put_if_absent_succeeds_once(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        store.key_values.now = lambda: 10
        stored = await asyncio.gather(*(store.key_values.put_if_absent("jti", "k", str(n).encode(), 20) for n in range(64)))
        assert stored.count(True) == 1
        assert await store.key_values.get("jti", "k", 10) == str(stored.index(True)).encode()
        assert await store.key_values.put_if_absent("other", "k", b"x", 20)

    run(scenario)


def test_value_expires_at_its_instant(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        key_values.now = lambda: 10
        assert await key_values.put_if_absent("code", "k", b"old", 20)
        assert not await key_values.put_if_absent("code", "k", b"new", 30)
        assert await key_values.get("code", "k", 19) == b"old"
        assert await key_values.get("code", "k", 20) is None
        assert await key_values.pop("code", "k", 20) is None
        key_values.now = lambda: 20
        assert await key_values.put_if_absent("code", "k", b"new", 30)
        assert await key_values.pop("code", "k", 29) == b"new"
        assert await key_values.pop("code", "k", 29) is None

    run(scenario)


def test_deleting_kinds_counts_and_leaves_the_others(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        for kind, key in (("session", "a"), ("session", "b"), ("code", "c"), ("user", "d")):
            await store.key_values.put(kind, key, b"value", 2**62)
        async with store.snapshot() as snapshot:
            before = await snapshot.permission_epoch(None)
        assert await store.key_values.delete_kinds(["session", "code", "launch"]) == {"session": 2, "code": 1, "launch": 0}
        assert not await store.key_values.list_all("session", 0) and not await store.key_values.list_all("code", 0)
        assert await store.key_values.get("user", "d", 0) == b"value"
        async with store.snapshot() as snapshot:
            assert await snapshot.permission_epoch(None) != before

    run(scenario)


def test_put_overwrites_and_listing_returns_unexpired_values(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        await key_values.put("session", "b", b"1", 50)
        await key_values.put("session", "b", b"2", 60)
        await key_values.put("session", "a", b"3", 40)
        await key_values.put("else", "c", b"4", 60)
        assert await key_values.list_all("session", 39) == (("a", b"3"), ("b", b"2"))
        assert await key_values.list_all("session", 40) == (("b", b"2"),)
        assert await key_values.list_page("session", 39, 0, 1) == (2, (("a", b"3"),))
        assert await key_values.list_page("session", 39, 1, 5) == (2, (("b", b"2"),))
        assert await key_values.list_page("session", 40, 0, 0) == (1, ())
        await key_values.purge(40)
        assert await key_values.list_all("session", 0) == (("b", b"2"),)
        assert await key_values.list_all("else", 0) == (("c", b"4"),)

    run(scenario)


def test_value_is_replaced_only_if_it_is_the_expected_one(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        await key_values.put("session", "a", b"1", 50, "family")
        assert not await key_values.replace_value("session", "a", b"0", b"2")
        assert not await key_values.replace_value("session", "b", b"1", b"2")
        assert await key_values.replace_value("session", "a", b"1", b"2")
        assert await key_values.list_all("session", 49) == (("a", b"2"),)
        assert await key_values.list_all("session", 50) == ()
        await key_values.delete_family("family")
        assert await key_values.list_all("session", 0) == ()

    run(scenario)


def test_concurrent_exchanges_succeed_once(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await store.key_values.put("refresh", "old", b"x", 20, "family")

        async def exchange(number: int) -> bool:
            new = (KeyValueRecord(kind, f"new{number}", b"y", 30, "family") for kind in ("access", "refresh"))
            return await store.key_values.exchange("refresh", "old", 10, list(new))

        done = await asyncio.gather(*(exchange(number) for number in range(16)))
        assert done.count(True) == 1
        for kind in ("access", "refresh"):
            assert await store.key_values.list_all(kind, 10) == ((f"new{done.index(True)}", b"y"),)

    run(scenario)


def test_exchange_of_a_missing_or_expired_record_stores_nothing(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        await key_values.put("refresh", "old", b"x", 20)
        new = [KeyValueRecord("access", "new", b"y", 30)]
        assert not await key_values.exchange("refresh", "old", 20, new)
        assert not await key_values.exchange("refresh", "none", 10, new)
        assert await key_values.list_all("access", 0) == ()
        assert await key_values.exchange("refresh", "old", 19, new)  # the control
        assert await key_values.list_all("access", 0) == (("new", b"y"),)

    run(scenario)


def test_exchange_leaves_nothing_of_a_family_deleted_meanwhile(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        for number in range(8):
            await key_values.put("refresh", "old", b"x", 20, "family")
            new = [KeyValueRecord("refresh", "new", b"y", 30, "family"), KeyValueRecord("access", "new", b"y", 30, "family")]
            jobs = [key_values.exchange("refresh", "old", 10, new), key_values.delete_family("family")]
            await asyncio.gather(*(jobs if number % 2 else reversed(jobs)))
            assert await key_values.list_all("refresh", 0) == await key_values.list_all("access", 0) == ()

    run(scenario)


def test_delete_family_removes_its_values_and_advances_epoch(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        for kind, key, family in (("access", "a", "f"), ("refresh", "b", "f"), ("access", "c", "g"), ("access", "d", "")):
            await key_values.put(kind, key, b"x", 50, family)
        async with store.snapshot() as snapshot:
            before = await snapshot.permission_epoch(None)
        await key_values.delete_family("f")
        async with store.snapshot() as snapshot:
            assert (await snapshot.permission_epoch(None)).security == before.security + 1
        assert [key for key, _ in await key_values.list_all("access", 0)] == ["c", "d"]
        assert await key_values.list_all("refresh", 0) == ()
        await key_values.delete_family("")
        assert [key for key, _ in await key_values.list_all("access", 0)] == ["c", "d"]

    run(scenario)


def test_log_returns_lines_in_order_and_from_any_position(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await store.append_log("audit", [LogEntry(b"1"), LogEntry(b"2")])
        await store.append_log("other", [LogEntry(b"x")])
        await store.append_log("audit", iter([LogEntry(b"3")]))
        lines = await store.read_log("audit")
        assert [line for _, line in lines] == [b"1", b"2", b"3"]
        numbers = [number for number, _ in lines]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > 0
        assert await store.read_log("audit", after=numbers[0], limit=1) == (lines[1],)
        assert await store.read_log("audit", after=numbers[2]) == ()
        assert [line for _, line in await store.read_log("other")] == [b"x"]
        assert await store.read_log("never") == ()

    run(scenario)


def test_only_the_first_lines_of_a_log_can_be_purged(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await store.append_log("audit", [LogEntry(str(number).encode(), ("odd",) if number % 2 else ()) for number in range(6)])
        lines = await store.read_log("audit")
        numbers = [PurgedLine(number, ("odd",) if index % 2 else ()) for index, (number, _) in enumerate(lines)]
        for wrong in (numbers[1:3], numbers[:1] + numbers[2:3], [*numbers, PurgedLine(lines[-1][0] + 1)]):
            with pytest.raises(Problem, match="others now"):
                await store.purge_log("audit", wrong, LogEntry(b"gone"), unlinked)
        assert await store.read_log("audit") == lines
        await store.purge_log("audit", numbers[:3], LogEntry(b"gone"), unlinked)
        assert [line for _, line in await store.read_log("audit")] == [b"3", b"4", b"5", b"gone"]
        async with store.snapshot() as snapshot:
            assert [line for _, line in await snapshot.log_lines_unfiltered("audit", "odd", before=None, limit=9)] == [b"5", b"3"]
        left = await store.read_log("audit")
        await store.purge_log("audit", [PurgedLine(number) for number, _ in left], LogEntry(b"all gone"), unlinked)
        await store.append_log("audit", [LogEntry(b"more")])
        assert [line for _, line in await store.read_log("audit", left[-1][0])] == [b"all gone", b"more"]

    run(scenario)


def test_concurrent_appends_keep_every_line(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def one(number: int) -> Any:
            await store.append_log("audit", [LogEntry(f"{number}a".encode()), LogEntry(f"{number}b".encode())])

        await asyncio.gather(*(one(number) for number in range(50)))
        lines = [line for _, line in await store.read_log("audit")]
        assert len(lines) == 100
        for number in range(50):
            place = lines.index(f"{number}a".encode())
            assert lines[place + 1] == f"{number}b".encode()

    run(scenario)


def test_family_lists_only_its_unexpired_records_of_a_kind(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        key_values = store.key_values
        for key, family in (("b", "f"), ("a", "f"), ("c", "g"), ("d", "")):
            await key_values.put("session", key, key.encode(), 50, family)
        await key_values.put("code", "e", b"e", 50, "f")
        await key_values.put("session", "over", b"over", 40, "f")
        assert await key_values.list_family("session", "f", 40) == (("a", b"a"), ("b", b"b"))
        assert await key_values.list_family("session", "none", 0) == ()
        await key_values.delete_family("f")
        assert await key_values.list_family("session", "f", 0) == ()

    run(scenario)
