"""Has files made in processes of their own: a thread would hold Python's global lock."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import Final

import msgspec

from fhir_server.record_files.task import LENGTH_BYTES, TOO_LARGE, Task

_PROCESSES: Final = 2


class TooLargeError(Exception):
    """The file would be too large, or take too long."""


class FileMaker:
    """Makes files, a few at a time.  One per server process."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_PROCESSES)

    async def make(self, task: Task, bundle: bytes) -> bytes:
        """The file of a searchset Bundle.  Raises TooLargeError."""
        async with self._turns:
            process = await _start()
            try:
                message = msgspec.msgpack.encode(task)
                made, _ = await process.communicate(len(message).to_bytes(LENGTH_BYTES) + message + bundle)
            except BaseException:
                await _end(process)
                raise
        if process.returncode in (TOO_LARGE, -signal.SIGXCPU):
            raise TooLargeError
        if process.returncode:
            raise RuntimeError(f"The process that makes files ended with status {process.returncode}.")
        return made


async def _start() -> Process:
    # the modules are found where this process found them
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = (sys.executable, "-m", "fhir_server.record_files.worker")
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment)


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
