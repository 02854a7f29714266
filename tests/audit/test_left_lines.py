"""Lines that a killed server left beside its SQLite store are stored once by the next one, and nobody else can add any."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from fhir_server.audit import AuditLog
from fhir_server.audit.buffer_file import BufferFile, buffer_files
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.entries import security_entry
from fhir_server.audit.purge import plan, purge
from fhir_server.clock import SECOND
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry
from fhir_server.store.sqlite import SqliteStore
from tests.audit.buffering import KEYS, Server, buffered, file_with_lines, killed_while_writing, names_after_start, path

__all__ = ["path"]


def test_the_next_server_stores_the_lines_of_one_that_was_killed(path: Path) -> None:
    left = killed_while_writing(path, ["a", "b", "c"], ["before"])
    assert names_after_start(left) == ["before", "a", "b", "c"]


def test_the_first_lines_of_a_store_survive_too(path: Path) -> None:
    left = killed_while_writing(path, ["a", "b"], [])
    assert names_after_start(left, durable=False) == ["a", "b"]


def test_lines_that_the_log_has_are_not_stored_again(path: Path) -> None:
    """The server was killed after it had stored them and before it emptied the file."""
    left = killed_while_writing(path, ["a", "b", "b"], ["before", "b"])
    for file in buffer_files(left):
        shutil.copy(file, path.parent)
    assert names_after_start(path) == ["before", "b", "a", "b", "b"]


def purge_until(path: Path, second: int) -> None:
    """Purge what was recorded before this second, as a process that does not know the file of the killed server."""

    async def run() -> None:
        store = SqliteStore(path)
        log = AuditLog(store, KEYS)
        await log.prepare()
        found = await plan(store, log, second * SECOND, [])
        assert found.lines
        await purge(store, log, found, SecurityEvent("purge-audit"), lambda: 1000 * SECOND)
        await store.close()

    asyncio.run(run())


def left_after_its_lines_were_stored(path: Path) -> None:
    """Leave the file of a server that was killed after it had stored the lines a and b, and before it emptied the file."""
    left = killed_while_writing(path, ["a", "b"], ["before"])
    for file in buffer_files(left):
        shutil.copy(file, path.parent)


def test_purged_lines_are_not_brought_back_by_a_file_that_was_left(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_after_its_lines_were_stored(path)
    purge_until(path, 1)  # lines of the test are recorded at second 0
    assert names_after_start(path) == []
    assert "2 audit lines of a killed server are from before the last purge" in caplog.text


def test_lines_of_a_file_from_after_the_purge_are_stored(path: Path) -> None:
    async def write(second: int) -> None:
        server = Server(path)
        await server.log.record_event(SecurityEvent("sign-in", username=f"at {second}"), second * SECOND)
        await server.stop()

    asyncio.run(write(0))
    left = BufferFile(path, KEYS)
    for second in (1, 30):
        entry = security_entry(SecurityEvent("sign-in", username=f"left {second}"), second * SECOND, "")
        left.add([entry], 0)
    os.close(left._file or 0)  # its server is killed
    purge_until(path, 20)
    assert names_after_start(path) == ["left 30"]


def test_a_purge_of_earlier_lines_drops_none_of_a_file(path: Path) -> None:
    left = killed_while_writing(path, ["a", "b"], ["before", "second"])
    keep = {file.name: file.read_bytes() for file in buffer_files(left)}
    for file in buffer_files(left):
        file.unlink()
    purge_until(left, 1)  # the last line that it removes is the one before those of the file
    for name, text in keep.items():
        (left.parent / name).write_bytes(text)
    assert names_after_start(left) == ["a", "b"]


def test_a_file_of_a_running_server_is_left_alone(path: Path) -> None:
    async def run() -> list[str]:
        one, other = Server(path), Server(path)
        await one.record("before")
        async with one.long_write():
            await one.record("a")
            files = buffer_files(path)
            await other.log.prepare()
            assert buffer_files(path) == files and buffered(path)
        await one.stop()
        names = await other.names()
        await other.stop()
        return names

    assert asyncio.run(run()) == ["before", "a"]


def test_a_record_whose_end_is_missing_is_ignored(path: Path) -> None:
    left = killed_while_writing(path, ["a"], ["before"])
    file = file_with_lines(left)
    with file.open("ab") as opened:
        opened.write(file.read_bytes()[:-9])
    assert names_after_start(left) == ["before", "a"]


@pytest.mark.parametrize("change", ["text", "name", "key"])
def test_a_record_of_somebody_without_the_key_is_not_stored(change: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = killed_while_writing(path, ["a", "victim", "b"], ["before"])
    file = file_with_lines(left)
    if change == "text":
        file.write_bytes(file.read_bytes().replace(b"victim", b"nobody"))
    elif change == "name":
        file.rename(file.with_name(file.name + "0"))
    else:
        file.unlink()
        forged = BufferFile(left, ChainKeys("another secret key, of somebody who can write"))
        forged.add([LogEntry(b'{"event":{"agent":[{"altId":"forged"}]}}')], 0)
        forged.close()
    expected = {"text": ["before", "a", "b"], "name": ["before"], "key": ["before"]}
    assert names_after_start(left) == expected[change]
    assert "not written by this server" in caplog.text
