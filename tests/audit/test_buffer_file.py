"""Until the SQLite store has audit lines, they are durable in a file beside it, and none is lost or stored twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME, AuditLog, buffer_file, line_queue
from fhir_server.audit.buffer_file import BufferFile, buffer_files, read_buffer
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.entries import security_entry
from fhir_server.audit.purge import plan, purge
from fhir_server.audit.verification import verify
from fhir_server.clock import SECOND
from fhir_server.errors import Problem
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry
from fhir_server.store.sqlite import SqliteStore
from tests.served import Served, call

KEYS = ChainKeys("the secret key of the server, long enough")


class Server:
    """A server process with one store and its audit log."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.log = AuditLog(self.store, KEYS, beside=path, durable=durable)

    async def record(self, name: str) -> None:
        await self.log.record_event(SecurityEvent("sign-in", username=name), 0)

    async def names(self) -> list[str]:
        """The names of all lines of the log, in order, after a check of its chain."""
        verified = await verify(self.store, KEYS)
        assert verified.findings == []
        agents = [json.loads(line)["event"]["agent"][0] for _, line in await self.store.read_log(LOG_NAME)]
        return [agent["altId"] for agent in agents if "altId" in agent]

    async def stop(self) -> None:
        await self.log.close()
        await self.store.close()

    @asynccontextmanager
    async def long_write(self) -> AsyncIterator[None]:
        """A write of somebody, which ends with the block.  All lines before it are in the log."""
        await self.log.flush()
        begun, ended = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def job(transaction: Any) -> None:
            loop.call_soon_threadsafe(begun.set)
            ended.wait()

        writing = asyncio.create_task(self.store.run(job))
        await begun.wait()
        try:
            yield
        finally:
            ended.set()
            await writing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fhir.sqlite"


def killed_while_writing(path: Path, names: list[str], before: list[str]) -> Path:
    """The folder that a server leaves which was killed during a long write, after it answered requests with these names."""
    left = path.parent / "left"

    async def run() -> None:
        server = Server(path)
        for name in before:
            await server.record(name)
        async with server.long_write():
            for name in names:
                await server.record(name)
            left.mkdir()
            for file in path.parent.iterdir():
                if file.is_file():
                    shutil.copy(file, left)
        await server.stop()

    asyncio.run(run())
    return left / path.name


def buffered(path: Path) -> list[bytes]:
    """The lines in all files beside a store."""
    return [entry.text for file in buffer_files(path) for entry in read_buffer(file, KEYS).entries]


def file_with_lines(path: Path) -> Path:
    """The one file that a killed server left with lines."""
    (file,) = [file for file in buffer_files(path) if file.stat().st_size]
    return file


def names_after_start(path: Path, *, durable: bool = True) -> list[str]:
    """The names in the log after the next start of a server, and again after another."""

    async def start() -> list[str]:
        server = Server(path, durable=durable)
        await server.log.prepare()
        names = await server.names()
        await server.stop()
        return names

    names = asyncio.run(start())
    assert asyncio.run(start()) == names
    assert buffer_files(path) == []
    return names


def test_requests_are_answered_during_a_long_write_and_each_line_is_stored_once(path: Path) -> None:
    async def run() -> list[str]:
        server = Server(path)
        await server.record("before")
        async with server.long_write():
            await asyncio.gather(*(server.record(f"first {number}") for number in range(5)))
            await server.record("second")
            files = buffer_files(path)
            assert len(buffered(path)) == 6 and {file.stat().st_mode & 0o777 for file in files} == {0o600}
        await server.record("after")
        await server.log.flush()
        assert buffered(path) == []
        names = await server.names()
        await server.stop()
        assert buffer_files(path) == []
        return names

    assert asyncio.run(run()) == ["before", *(f"first {number}" for number in range(5)), "second", "after"]


def test_lines_are_stored_though_nobody_asks_for_that(path: Path) -> None:
    async def run() -> list[str]:
        server = Server(path)
        for number in range(3):
            await server.record(str(number))
        assert await server.names() == [] and len(buffered(path)) == 3
        while buffered(path):
            await asyncio.sleep(0.01)
        names = await server.names()
        await server.stop()
        return names

    assert asyncio.run(run()) == ["0", "1", "2"]


def test_files_of_a_server_without_rest_are_emptied_in_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a file would grow for as long as requests come."""
    monkeypatch.setattr(line_queue, "_GROUP", 5)
    emptied: Counter[BufferFile] = Counter()
    clear = BufferFile.clear

    def count(self: BufferFile) -> None:
        emptied[self] += self._number > 0
        clear(self)

    monkeypatch.setattr(BufferFile, "clear", count)

    async def run() -> list[str]:
        server = Server(path)

        async def client(lane: int) -> None:
            for number in range(60):
                await server.record(f"{lane}-{number}")

        await asyncio.gather(*(client(lane) for lane in range(4)))
        await server.log.flush()
        names = await server.names()
        await server.stop()
        return names

    names = asyncio.run(run())
    assert len(names) == 240 and sorted(names) == sorted(f"{lane}-{number}" for lane in range(4) for number in range(60))
    assert len(emptied) == 2 and min(emptied.values()) > 1


def test_without_the_file_requests_wait_for_the_write(path: Path) -> None:
    """The control: it is the file that lets them go."""

    async def run() -> None:
        server = Server(path)
        server.log = AuditLog(server.store, KEYS)
        await server.record("before")
        async with server.long_write():
            waiting = asyncio.create_task(server.record("waits"))
            done, _ = await asyncio.wait({waiting}, timeout=0.2)
            assert not done
        await waiting
        await server.stop()

    asyncio.run(run())


def test_reads_are_answered_during_a_write_of_another_client(tmp_path: Path) -> None:
    served = Served(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    token = served.token()
    begun, ended = threading.Event(), threading.Event()

    def job(transaction: Any) -> None:
        begun.set()
        ended.wait()

    async def run() -> None:
        writing = asyncio.create_task(served.parts.store.run(job))  # type: ignore[attr-defined]
        await asyncio.to_thread(begun.wait)
        try:
            for _ in range(3):
                answer = await call(served.api, "GET", "/Patient/adult", b"", {"authorization": f"Bearer {token}"}, b"")
                assert answer.status == 200
        finally:
            ended.set()
            await writing

    served.run(run())
    served.close()


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


def test_lines_that_cannot_be_buffered_wait_for_the_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: BufferFile, entries: Any, after: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(buffer_file.BufferFile, "add", add)

    async def run() -> list[str]:
        server = Server(path)
        async with server.long_write():
            waiting = asyncio.create_task(server.record("a"))
            done, _ = await asyncio.wait({waiting}, timeout=0.2)
            assert not done
        await waiting
        names = await server.names()
        await server.stop()
        return names

    assert asyncio.run(run()) == ["a"]


def test_a_write_that_fails_keeps_no_part_of_its_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = BufferFile(path, KEYS)
    file.add([LogEntry(b'{"event":1}')], 0)
    with monkeypatch.context() as patch:
        patch.setattr(buffer_file.os, "write", lambda file, text: _part(file, text))
        with pytest.raises(OSError, match="a part"):
            file.add([LogEntry(b'{"event":2}')], 0)
    file.add([LogEntry(b'{"event":3}')], 0)
    left = read_buffer(buffer_files(path)[0], KEYS)
    assert [entry.text for entry in left.entries] == [b'{"event":1}', b'{"event":3}'] and not left.damaged
    file.clear()
    file.close()


def _part(file: int, text: bytes) -> int:
    with open(file, "ab", closefd=False) as opened:
        return opened.write(text[:20])


def test_a_file_that_cannot_be_made_durable_is_not_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int) -> None:
        raise OSError("the disk is away")

    file = BufferFile(path, KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(buffer_file.os, "fsync", refuse)
        with pytest.raises(OSError, match="away"):
            file.add([LogEntry(b'{"event":1}')], 0)
        assert buffer_files(path) == []
    file.add([LogEntry(b'{"event":2}')], 0)
    assert [entry.text for entry in read_buffer(buffer_files(path)[0], KEYS).entries] == [b'{"event":2}']
    file.clear()
    file.close()


def test_buffered_lines_are_stored_when_the_store_fails_for_a_while(path: Path) -> None:
    """Their responses have left, so they are not given up."""

    async def run() -> list[str]:
        server = Server(path)
        await server.record("before")
        right, failures = server.store.append_log, 0

        async def failing(*args: Any) -> None:
            nonlocal failures
            failures += 1
            if failures < 3:
                await asyncio.sleep(0.1)
                raise Problem("busy", "The disk is full.")
            await right(*args)

        server.store.append_log = failing  # type: ignore[method-assign]
        await server.record("a")
        while buffered(path):
            await asyncio.sleep(0.01)
        names = await server.names()
        await server.stop()
        return names

    assert asyncio.run(run()) == ["before", "a"]
