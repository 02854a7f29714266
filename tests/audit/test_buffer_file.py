"""Until the SQLite store has audit lines, they are durable in a file beside it, and none is lost or stored twice."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fhir_server.audit import AuditLog, buffer_file, line_queue
from fhir_server.audit.buffer_file import BufferFile, buffer_files, read_buffer
from fhir_server.errors import Problem
from fhir_server.store import LogEntry
from tests.audit.buffering import KEYS, Server, buffered, path
from tests.seeded import seeded
from tests.served import call

__all__ = ["path"]


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
    served = seeded(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
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
