"""Purging the audit log by age: the log verifies afterwards, and what is done to it without a record is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import pytest

from fhir_server.audit import LOG_NAME, AuditLog
from fhir_server.audit import purge as purging
from fhir_server.audit.anchors import read_anchors
from fhir_server.audit.archive import ArchiveWriter, verify_archive
from fhir_server.audit.chain import ChainKeys, parse_line
from fhir_server.audit.purge import plan, purge
from fhir_server.audit.verification import Verified, verify
from fhir_server.clock import MAX_INSTANT, SECOND
from fhir_server.errors import Problem
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry, Store, open_store
from fhir_server.store.logs import HEAD
from tests.audit.test_chain import KEYS, OTHER, former_lines, on_each_store
from tests.store.stores import SCHEMES, empty_store

EVENT = SecurityEvent("purge-audit", detail={"reason": "six years"})


async def written(store: Store, first: int, last: int, keys: ChainKeys = KEYS, anchor_file: Path | None = None) -> AuditLog:
    """Write lines as a server process; line ``n`` is recorded at second ``n``."""
    log = AuditLog(store, keys, anchor_file=anchor_file, now=lambda: last * SECOND)
    for number in range(first, last):
        event = SecurityEvent("sign-in", username=f"user-{number}", about=(f"Patient/p{number % 3}",))
        await log.record_event(event, number * SECOND)
    await log.close()
    return log


async def purged(store: Store, second: int, keys: ChainKeys = KEYS, path: Path | None = None, archive: Path | None = None) -> int:
    """Purge what was recorded before this second; how many lines that were."""
    log = AuditLog(store, keys)
    await log.prepare()
    anchors = read_anchors(path) if path else []
    if archive is None:
        found = await plan(store, log, second * SECOND, anchors)
    else:
        with ArchiveWriter(archive, keys) as writer:
            found = await plan(store, log, second * SECOND, anchors, writer.add)
            writer.finish(found.after)
    await purge(store, log, found, EVENT, lambda: 1000 * SECOND)
    return found.lines


async def users(store: Store, key: str | None = None) -> list[str]:
    """The users of the events of sign-in, oldest first; ``key``: as they are found by it."""
    async with store.snapshot() as snapshot:
        lines = await snapshot.log_lines_unfiltered(LOG_NAME, key, before=None, limit=1000)
    events = [json.loads(line)["event"] for _, line in reversed(lines)]
    return [event["agent"][0]["altId"] for event in events if "altId" in event["agent"][0]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_purged_log_verifies_and_goes_on(scheme: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> tuple[int, Verified, list[Any], list[str], list[str]]:
        await written(store, 0, 20)
        count = await purged(store, 12)
        await written(store, 20, 25)
        lines = [parse_line(line) for _, line in await store.read_log(LOG_NAME)]
        return count, await verify(store, KEYS), lines, await users(store), await users(store, "Patient/p0")

    count, result, lines, left, of_patient = on_each_store(scheme, tmp_path, scenario)
    assert (count, result.findings, result.lines, result.purged) == (12, [], 14, 12)
    assert [line.seq for line in lines] == list(range(12, 26))
    assert left == [f"user-{number}" for number in range(12, 25)]
    assert of_patient == [f"user-{number}" for number in range(12, 25, 3)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_step_of_a_purge_leaves_a_log_that_verifies(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_STEP", 4)

    async def scenario(store: Store) -> tuple[list[Verified], list[Any]]:
        await written(store, 0, 20)
        results, right = [], store.purge_log

        async def step(*given: Any) -> None:
            await right(*given)
            results.append(await verify(store, KEYS))
            if len(results) == 2:
                raise OSError("the power")

        monkeypatch.setattr(store, "purge_log", step)
        with pytest.raises(OSError, match="the power"):
            await purged(store, 14)
        assert await purged(store, 14) == 6  # goes on where it stopped
        assert await purged(store, 14) == 0
        return results, [parse_line(line) for _, line in await store.read_log(LOG_NAME)]

    results, lines = on_each_store(scheme, tmp_path, scenario)
    assert [(result.findings, result.purged) for result in results] == [([], 4), ([], 8), ([], 12), ([], 14)]
    assert [(line.purged.lines, line.purged.total) for line in lines if line.purged] == [(4, 4), (4, 8), (4, 12), (2, 14)]


def sqlite_log(folder: Path, scenario: Callable[[Store], Any]) -> Path:
    """The file of a store after a scenario."""

    async def run() -> None:
        store = empty_store("sqlite", folder)
        await scenario(store)
        await store.key_values.put("user", "adult", b"{}", MAX_INSTANT)
        await store.close()

    asyncio.run(run())
    return folder / "store.sqlite"


def found_in(path: Path) -> Verified:
    async def run() -> Verified:
        store = open_store(f"sqlite:///{path}")
        try:
            return await verify(store, KEYS)
        finally:
            await store.close()

    return asyncio.run(run())


CHANGES = {
    "further lines removed by hand": "DELETE FROM journal WHERE n <= 15",
    "one further line removed by hand": "DELETE FROM journal WHERE n = 13",
    "a line in the middle removed": "DELETE FROM journal WHERE n = 16",
    "the tail removed": "DELETE FROM journal WHERE n >= 20",
    "all removed": "DELETE FROM journal",
    "the first line changed": "UPDATE journal SET line = CAST(replace(CAST(line AS TEXT), 'user-12', 'user-1') AS BLOB) WHERE n = 13",
    "the record of the purge removed": "DELETE FROM journal WHERE CAST(line AS TEXT) LIKE '%\"purged\"%'",
    "the record of the purge not found": "DELETE FROM log_key WHERE key = 'purges'",
    "the record of the purge changed": (
        "UPDATE journal SET line = CAST(replace(CAST(line AS TEXT), '\"through\":12', '\"through\":13') AS BLOB);"
        " DELETE FROM journal WHERE n = 13"
    ),
    "a line put before the beginning": "INSERT INTO journal SELECT 5, journal, line FROM journal WHERE n = 14",
    "the head of the chain removed": "DELETE FROM secret WHERE kind = 'log-head'",
}


@pytest.mark.parametrize("sql", CHANGES.values(), ids=CHANGES)
def test_each_change_of_a_purged_log_is_found(sql: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        await written(store, 0, 20)
        await purged(store, 12)
        await written(store, 20, 25)

    path = sqlite_log(tmp_path, scenario)
    assert found_in(path).findings == []
    with apsw.Connection(str(path)) as connection:
        connection.execute(sql).fetchall()
        assert connection.total_changes() > 0
    assert found_in(path).count > 0


def test_a_purge_that_nobody_recorded_is_found(tmp_path: Path) -> None:
    path = sqlite_log(tmp_path, lambda store: written(store, 0, 520))
    with apsw.Connection(str(path)) as connection:
        connection.execute("DELETE FROM journal WHERE n <= 500")
    result = found_in(path)
    assert result.count == 1 and "numbers 0 to 499" in result.findings[0]


def test_a_log_that_does_not_verify_is_not_purged(tmp_path: Path) -> None:
    path = sqlite_log(tmp_path, lambda store: written(store, 0, 20))
    with apsw.Connection(str(path)) as connection:
        connection.execute("DELETE FROM journal WHERE n = 5")

    async def run() -> int:
        store = open_store(f"sqlite:///{path}")
        with pytest.raises(ValueError, match="nothing is purged"):
            await purged(store, 12)
        lines = len(await store.read_log(LOG_NAME))
        await store.close()
        return lines

    assert asyncio.run(run()) == 19


async def with_former_chains(store: Store) -> tuple[ChainKeys, int]:
    """A log with lines of an earlier version, under a key that is lost, under a replaced key, and under the present one."""
    former = [json.loads(line) for line in former_lines("a", 6)]
    for number, line in enumerate(former):
        line["event"]["recorded"] = f"1970-01-01T00:00:0{number}.000Z"
    await store.append_log(LOG_NAME, [LogEntry(json.dumps(line).encode()) for line in _rechained(former)])
    await written(store, 6, 10, ChainKeys("a key that will be lost soon, long enough"))
    log = AuditLog(store, KEYS)
    await log.begin_again("the key is lost")
    await log.record_event(SecurityEvent("restart-audit"), 10 * SECOND)
    await written(store, 11, 20)
    present = ChainKeys("the present secret key, which is long enough", ["the secret key of the server, long enough"])
    await written(store, 20, 30, present)
    return present, 30


def _rechained(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    before = ""
    for line in lines:
        line["before"] = before
        before = sha256(json.dumps(line).encode()).hexdigest()
    return lines


@pytest.mark.parametrize("second", [3, 6, 8, 10, 11, 15, 20, 21, 30])
@pytest.mark.parametrize("known", ["present key alone", "present and former key"])
def test_purge_through_any_chain_keeps_what_vouches_for_the_rest(
    second: int, known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines under lost keys are protected by digests alone: a change of one that remains is found, before and after the last step."""
    monkeypatch.setattr(purging, "_STEP", 4)

    async def scenario(store: Store) -> list[Verified]:
        keys, _ = await with_former_chains(store)
        used = keys if known != "present key alone" else ChainKeys("the present secret key, which is long enough")
        results, right = [], store.purge_log

        async def step(*given: Any) -> None:
            await right(*given)
            results.append(await verify(store, used))

        monkeypatch.setattr(store, "purge_log", step)
        assert await purged(store, second, used) == second
        monkeypatch.undo()
        await written(store, 30, 35, used)
        results.append(await verify(store, used))
        return results

    async def run() -> list[Verified]:
        store = empty_store("sqlite", tmp_path)
        try:
            return await scenario(store)
        finally:
            await store.close()

    results = asyncio.run(run())
    assert [result.findings for result in results] == [[]] * len(results) and results[-1].purged == second
    path = tmp_path / "store.sqlite"
    for number in range(second + 1, 30):
        with apsw.Connection(str(path)) as connection:
            ((line,),) = connection.execute("SELECT line FROM journal WHERE n = ?", (number,)).fetchall()
            changed = line.replace(b'"event"', b'"Event"', 1)
            connection.execute("UPDATE journal SET line = ? WHERE n = ?", (changed, number))
        assert _with_keys(path).count > 0, number
        with apsw.Connection(str(path)) as connection:
            connection.execute("UPDATE journal SET line = ? WHERE n = ?", (line, number))
    assert _with_keys(path).count == 0


def _with_keys(path: Path) -> Verified:
    async def run() -> Verified:
        store = open_store(f"sqlite:///{path}")
        try:
            return await verify(store, ChainKeys("the present secret key, which is long enough"))
        finally:
            await store.close()

    return asyncio.run(run())


def test_a_new_chain_after_an_interrupted_purge_is_found_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_STEP", 4)
    present = ChainKeys("the present secret key, which is long enough", ["the secret key of the server, long enough"])

    async def scenario(store: Store) -> list[Verified]:
        await written(store, 0, 20)
        right, steps = store.purge_log, []

        async def step(*given: Any) -> None:
            steps.append(given)
            if len(steps) == 3:
                raise OSError("the power")
            await right(*given)

        monkeypatch.setattr(store, "purge_log", step)
        with pytest.raises(OSError, match="the power"):
            await purged(store, 14)
        with pytest.raises(ValueError, match="Start a server first"):
            await purged(store, 14, present)
        await written(store, 20, 25, present)
        results = [await verify(store, present)]
        assert await purged(store, 14, present) == 6
        return [*results, await verify(store, present)]

    results = on_each_store("sqlite", tmp_path, scenario)
    assert [result.findings for result in results] == [[], []]


def test_purge_stops_if_another_chain_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_STEP", 4)

    async def run() -> Verified:
        store = open_store("memory:")
        await written(store, 0, 20)
        right = store.purge_log

        async def step(*given: Any) -> None:
            await right(*given)
            log = AuditLog(store, KEYS)
            await log.begin_again("somebody restarts it")
            await log.record_event(SecurityEvent("restart-audit"), 20 * SECOND)

        monkeypatch.setattr(store, "purge_log", step)
        with pytest.raises(Problem, match="others now"):
            await purged(store, 14)
        return await verify(store, KEYS)

    assert asyncio.run(run()).findings == []


def test_anchors_of_purged_lines_are_told_apart_from_lost_ones(tmp_path: Path) -> None:
    path = tmp_path / "anchors"

    async def run() -> tuple[Verified, Verified]:
        store = open_store("memory:")
        for first in range(0, 10_000, 1000):
            await written(store, first, first + 3, anchor_file=path)
        await purged(store, 4001, path=path)
        whole = await verify(store, KEYS, read_anchors(path))
        kept = store.state.logs[LOG_NAME]  # type: ignore[attr-defined]
        cut = [one for one in kept if b"user-9" not in one[2]]
        head = parse_line(cut[-1][2])
        assert head is not None and len(cut) < len(kept)
        store.state.logs[LOG_NAME] = cut  # type: ignore[attr-defined]
        await store.key_values.put(HEAD, LOG_NAME, KEYS.head(head.seq, head.mac), MAX_INSTANT)  # an earlier head put back
        return whole, await verify(store, KEYS, read_anchors(path))

    whole, cut = asyncio.run(run())
    assert whole.findings == [] and "9 anchors are of lines that were purged, and cannot be compared any more." in whole.notes
    assert "11 anchors fit." in whole.notes
    assert any("anchors do not fit" in text for text in cut.findings)


def test_archive_verifies_without_the_store_and_each_change_is_found(tmp_path: Path) -> None:
    path = tmp_path / "archive"

    async def run() -> None:
        store = open_store("memory:")
        keys, _ = await with_former_chains(store)
        assert await purged(store, 4, keys) == 4  # so the archive begins after lines of another purge
        assert await purged(store, 25, keys, archive=path) == 21

    asyncio.run(run())
    keys = ChainKeys("the present secret key, which is long enough")
    assert path.stat().st_mode & 0o777 == 0o600
    whole = verify_archive(path, keys)
    assert (whole.findings, whole.lines) == ([], 21)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 22
    changes = [lines[:number] + lines[number + 1 :] for number in range(len(lines))]
    changes += [[*lines[:number], lines[number].replace(b"event", b"Event"), *lines[number + 1 :]] for number in range(21)]
    changes += [[*lines, lines[3]], lines[::-1], [*lines[:-1], lines[-1].replace(b'"lines":21', b'"lines":20')]]
    for changed in changes:
        (tmp_path / "changed").write_bytes(b"".join(changed))
        assert verify_archive(tmp_path / "changed", keys).findings
    assert verify_archive(path, OTHER).findings
    with pytest.raises(FileExistsError):
        ArchiveWriter(path, keys)
