"""A server process whose audit lines are buffered beside its SQLite store, for tests, and what it leaves when it is killed."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME, AuditLog
from fhir_server.audit.buffer_file import buffer_files, read_buffer
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.verification import verify
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store.sqlite import SqliteStore

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
