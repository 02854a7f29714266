"""The chain of the audit log on every store: whatever is done to the log without the secret key is found."""

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
from fhir_server.audit.anchors import anchor_text, read_anchors
from fhir_server.audit.chain import ChainKeys, parse_line
from fhir_server.audit.verification import Verified, verify
from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry, Store, open_store
from fhir_server.store.logs import HEAD
from tests.store.stores import SCHEMES, empty_store

KEYS = ChainKeys("the secret key of the server, long enough")
OTHER = ChainKeys("another secret key, of somebody who can write")
Line = tuple[int, bytes]


async def written(store: Store, count: int, keys: ChainKeys = KEYS, **options: Any) -> AuditLog:
    """Write ``count`` lines as a server process."""
    log = AuditLog(store, keys, **options)
    for number in range(count):
        await log.record_event(SecurityEvent("sign-in", username=f"user-{number}"), 1_000_000 * number)
    await log.close()
    return log


async def replaced(store: Store, lines: list[bytes], *, head: bytes | None = None, keep_head: bool = True) -> Store:
    """A new store with these lines, as somebody leaves it who can write to it."""
    forged = open_store("memory:")
    await forged.append_log(LOG_NAME, [LogEntry(line) for line in lines])
    kept = head or (await store.key_values.get(HEAD, LOG_NAME, 0) if keep_head else None)
    if kept is not None:
        await forged.key_values.put(HEAD, LOG_NAME, kept, MAX_INSTANT)
    return forged


def on_each_store(scheme: str, folder: Path, scenario: Callable[[Store], Any]) -> Any:
    async def run() -> Any:
        store = empty_store(scheme, folder)
        try:
            return await scenario(store)
        finally:
            await store.close()

    return asyncio.run(run())


def renumbered(lines: list[bytes]) -> list[bytes]:
    """The lines as somebody rewrites them with a key of his own: every number, MAC and event fits."""
    chain: list[bytes] = []

    async def forge() -> None:
        store = open_store("memory:")
        log = AuditLog(store, OTHER)
        for line in lines:
            name = json.loads(line)["event"]["agent"][0]["altId"]
            await log.record_event(SecurityEvent("sign-in", username=name.replace("user", "innocent")), 0)
        chain.extend([line for _, line in await store.read_log(LOG_NAME)])

    asyncio.run(forge())
    return chain


@pytest.mark.parametrize("scheme", SCHEMES)
def test_untouched_log_verifies_and_each_line_has_the_next_number(scheme: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> tuple[Verified, list[Any]]:
        await written(store, 20)
        await written(store, 5)
        return await verify(store, KEYS), [parse_line(line) for _, line in await store.read_log(LOG_NAME)]

    result, lines = on_each_store(scheme, tmp_path, scenario)
    assert result.findings == [] and result.lines == 25
    assert [line.seq for line in lines] == list(range(25))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_concurrent_processes_write_one_chain(scheme: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> Verified:
        await asyncio.gather(*(written(store, 30) for _ in range(4)))
        return await verify(store, KEYS)

    result = on_each_store(scheme, tmp_path, scenario)
    assert (result.findings, result.lines) == ([], 120)


def test_two_connections_to_one_file_write_one_chain(tmp_path: Path) -> None:
    async def scenario() -> Verified:
        stores = [open_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}") for _ in range(3)]
        await asyncio.gather(*(written(store, 40) for store in stores))
        result = await verify(stores[0], KEYS)
        for store in stores:
            await store.close()
        return result

    result = asyncio.run(scenario())
    assert (result.findings, result.lines) == ([], 120)


Change = Callable[[list[bytes]], list[bytes]]
CHANGES: dict[str, Change] = {
    "a line removed": lambda lines: [*lines[:7], *lines[8:]],
    "the first lines removed": lambda lines: lines[3:],
    "the tail cut off": lambda lines: lines[:-5],
    "the last line removed": lambda lines: lines[:-1],
    "all lines removed": lambda lines: [],
    "a line changed": lambda lines: [*lines[:7], lines[7].replace(b"user-7", b"user-0"), *lines[8:]],
    "the last line changed": lambda lines: [*lines[:-1], lines[-1].replace(b"user", b"evil")],
    "two lines exchanged": lambda lines: [*lines[:7], lines[8], lines[7], *lines[9:]],
    "a line repeated": lambda lines: [*lines[:8], *lines[7:]],
    "the tail repeated": lambda lines: [*lines, *lines[-3:]],
    "a foreign line added": lambda lines: [*lines[:7], b'{"event":{}}', *lines[7:]],
    "a foreign line added at the end": lambda lines: [*lines, b"{}"],
    "a number changed": lambda lines: [*lines[:7], lines[7].replace(b'"seq":7', b'"seq":8'), *lines[8:]],
    "a member added twice": lambda lines: [*lines[:7], lines[7][:-1] + b',"event":{}}', *lines[8:]],
    "everything rewritten with another key": renumbered,
    "the tail rewritten with another key": lambda lines: [*lines[:10], *renumbered(lines)[10:]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("head", ["kept", "removed", "of another key"])
def test_each_change_of_the_log_is_found(change: Change, head: str, tmp_path: Path) -> None:
    """Whatever happens to the head: it is kept, removed, or made again with another key."""
    store = open_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")

    def lines_of() -> list[bytes]:
        async def read() -> list[bytes]:
            await written(store, 20)
            return [line for _, line in await store.read_log(LOG_NAME)]

        return asyncio.run(read())

    changed = change(lines_of())
    last = parse_line(changed[-1]) if changed else None

    async def examine() -> Verified:
        forged_head = OTHER.head(last.seq, last.mac) if last and head == "of another key" else None
        forged = await replaced(store, changed, head=forged_head, keep_head=head == "kept")
        await forged.key_values.put("user", "adult", b"{}", MAX_INSTANT)
        await store.close()
        return await verify(forged, KEYS)

    result = asyncio.run(examine())
    assert result.count > 0 and result.findings


def test_an_earlier_log_put_back_with_its_head_is_found_by_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "anchors"

    async def scenario() -> tuple[Verified, Verified, Verified]:
        store = open_store("memory:")
        await written(store, 10, anchor_file=path)
        early = [line for _, line in await store.read_log(LOG_NAME)], await store.key_values.get(HEAD, LOG_NAME, 0)
        await written(store, 10, anchor_file=path)
        forged = await replaced(store, early[0], head=early[1])
        anchors = read_anchors(path)
        return await verify(forged, KEYS), await verify(forged, KEYS, anchors), await verify(store, KEYS, anchors)

    without, found, control = asyncio.run(scenario())
    assert without.findings == []  # nothing inside the store can tell
    assert found.count == 1 and "anchors do not fit" in found.findings[0]
    assert control.findings == [] and "4 anchors fit." in control.notes


def test_an_anchor_names_time_number_and_mac_of_the_last_line() -> None:
    async def scenario() -> tuple[str, bytes]:
        store = open_store("memory:")
        log = await written(store, 3)
        head = await log.head()
        assert head is not None
        return anchor_text(head, 1_000_000), (await store.read_log(LOG_NAME))[-1][1]

    text, line = asyncio.run(scenario())
    last = parse_line(line)
    assert last and text == f"1970-01-01T00:00:01.000Z 2 {last.mac}\n"


def former_lines(chain: str, count: int) -> list[bytes]:
    """Lines as earlier versions of the program wrote them."""
    lines, before = [], ""
    for number in range(count):
        lines.append(json.dumps({"chain": chain, "before": before, "event": {"number": number}}).encode())
        before = sha256(lines[-1]).hexdigest()
    return lines


async def upgraded(lines: list[bytes]) -> tuple[Store, Verified]:
    store = open_store("memory:")
    await store.append_log(LOG_NAME, [LogEntry(line) for line in lines])
    await written(store, 3)
    return store, await verify(store, KEYS)


def test_lines_of_earlier_versions_verify_and_the_chain_holds_their_digest() -> None:
    store, result = asyncio.run(upgraded([*former_lines("a", 5), *former_lines("b", 3)]))
    assert (result.findings, result.former, result.lines) == ([], 8, 11)

    async def changed() -> Verified:
        lines = [line for _, line in await store.read_log(LOG_NAME)]
        return await verify(await replaced(store, [*lines[:4], *lines[5:]]), KEYS)

    assert any("lines before line" in text for text in asyncio.run(changed()).findings)


def test_broken_chains_of_earlier_versions_are_found() -> None:
    whole = former_lines("a", 5)
    _, result = asyncio.run(upgraded([*whole[:2], *whole[3:]]))
    assert result.count == 1 and "earlier version" in result.findings[0]


def test_lines_that_an_earlier_version_stored_twice_are_no_finding() -> None:
    """Earlier versions could store the last lines of a process twice when they were stopped."""
    whole = former_lines("a", 5)
    _, result = asyncio.run(upgraded([*whole, *whole[2:]]))
    assert (result.findings, result.repeated) == ([], 3)


def test_a_log_of_another_key_cannot_be_continued_or_verified() -> None:
    async def scenario() -> tuple[Verified, int]:
        store = open_store("memory:")
        await written(store, 3)
        with pytest.raises(ValueError, match="another FHIR_SERVER_SECRET_KEY"):
            await AuditLog(store, OTHER).prepare()
        with pytest.raises(Exception, match="audit log cannot be written"):
            await written(store, 1, OTHER)
        return await verify(store, OTHER), len(await store.read_log(LOG_NAME))

    result, lines = asyncio.run(scenario())
    assert lines == 3 and result.count == 2


def test_a_replaced_key_begins_a_chain_that_vouches_for_earlier_lines() -> None:
    async def scenario() -> tuple[Verified, Verified]:
        store = open_store("memory:")
        await written(store, 3)
        await written(store, 3, ChainKeys("another secret key, of the same server", ["the secret key of the server, long enough"]))
        new = ChainKeys("another secret key, of the same server")
        lines = [line for _, line in await store.read_log(LOG_NAME)]
        return await verify(store, new), await verify(await replaced(store, [lines[0], *lines[2:]]), new)

    result, changed = asyncio.run(scenario())
    assert (result.findings, result.lines) == ([], 6) and "secret key was replaced" in result.notes[0]
    assert changed.count > 0


@pytest.mark.parametrize("lost", ["key", "head"])
def test_the_operator_can_begin_a_new_chain_and_the_log_says_so(lost: str) -> None:
    async def scenario() -> Verified:
        store = open_store("memory:")
        await written(store, 3)
        if lost == "head":
            await store.key_values.pop(HEAD, LOG_NAME, 0)
        keys = OTHER if lost == "key" else KEYS
        with pytest.raises(ValueError, match="audit restart"):
            await AuditLog(store, keys).prepare()
        log = AuditLog(store, keys)
        await log.begin_again("restored from a backup")
        await log.record_event(SecurityEvent("restart-audit"), 0)
        await written(store, 2, keys)
        return await verify(store, keys)

    result = asyncio.run(scenario())
    assert (result.findings, result.lines) == ([], 6) and "restored from a backup" in result.notes[0]


def test_a_log_removed_with_its_head_is_found_if_the_store_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "fhir.sqlite"

    async def scenario() -> tuple[Verified, Verified]:
        store = open_store(f"sqlite:///{path}")
        fresh = await verify(store, KEYS)
        await store.key_values.put("user", "adult", b"{}", MAX_INSTANT)
        await written(store, 3)
        with apsw.Connection(str(path)) as connection:
            connection.execute("DELETE FROM journal")
            connection.execute("DELETE FROM secret WHERE kind = 'log-head'")
        result = await verify(store, KEYS)
        await store.close()
        return fresh, result

    fresh, result = asyncio.run(scenario())
    assert fresh.findings == [] and "the log was removed" in result.findings[0]
