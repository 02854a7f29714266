"""Takes lines of the audit log to the store, many in one commit, and says when each is durable.

``durable`` lines without files beside the store are durable when their commit has ended, and the next commit takes all that came
meanwhile.  With files (:mod:`~fhir_server.audit.buffer_file`) they are durable when they are in a file, and the store receives them
four times a second.  Otherwise nobody waits for a line, and the store receives them four times a second too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Final

from fhir_server.audit.buffer_file import BufferFile
from fhir_server.audit.chain import UNWRITTEN
from fhir_server.errors import Problem
from fhir_server.store import LogEntry

_log = logging.getLogger("fhir_server")
_PAUSE: Final = 0.25  # seconds between commits of lines that nobody waits for
_GROUP: Final = 1000  # lines in one commit, or in one record of a file
_MAX_LINES: Final = 10_000
_MAX_BYTES: Final = 32 * 1024 * 1024


class _Line:
    """A line that is not stored yet.  ``durable`` is done when its response may leave; None: at once.  ``file``: which one has it."""

    __slots__ = ("durable", "entry", "file")

    def __init__(self, entry: LogEntry, durable: asyncio.Future[None] | None) -> None:
        self.entry, self.durable, self.file = entry, durable, None

    file: BufferFile | None

    @property
    def is_promised(self) -> bool:
        """Whether its response may have left, so that it must not be given up."""
        return self.durable is None or self.file is not None

    def finish(self, error: Exception | None = None) -> None:
        """Let its response go, or fail."""
        if self.durable is None or self.durable.done():
            return
        if error is None:
            self.durable.set_result(None)
        else:
            problem = unwritten()
            problem.__cause__ = error
            self.durable.set_exception(problem)


class LineQueue:
    """The lines of this process on their way to the store, in order.

    ``append``  stores entries
    ``last_number``  the number of the last line that the log has
    ``durable``  whether :meth:`add` returns only when its line is durable
    ``files``  two, where lines are durable meanwhile; lines are written to one while those of the other are stored
    """

    def __init__(
        self,
        append: Callable[[list[LogEntry]], Awaitable[None]],
        last_number: Callable[[], Awaitable[int]],
        *,
        durable: bool,
        files: tuple[BufferFile, BufferFile] | None = None,
    ) -> None:
        self._append = append
        self._last_number = last_number
        self._durable = durable
        self._files = files
        self._file = files[0] if files else None
        self._after: int | None = None  # the number of a line that the log had before all lines that are not stored
        self._new: list[_Line] = []  # to be written to a file
        self._queue: list[_Line] = []  # to be stored
        self._added = self._ended = 0  # lines so far, and those that are stored or have failed
        self._bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[bool] | None = None
        self._wake = asyncio.Event()
        self._flushing = 0

    async def add(self, entry: LogEntry) -> None:
        """Add a line.  Raises Problem ``busy`` if it cannot be made durable."""
        if self.is_full(entry):
            if self._durable:
                raise unwritten()
            await self.flush()  # then this answer waits
        line = _Line(entry, asyncio.get_running_loop().create_future() if self._durable else None)
        self._put(line)
        if line.durable is not None:
            await line.durable

    def is_full(self, entry: LogEntry) -> bool:
        """Whether too many lines wait for another one."""
        return self._added - self._ended >= _MAX_LINES or self._bytes + len(entry.text) > _MAX_BYTES

    def put(self, entry: LogEntry) -> None:
        """Add a line for which nobody waits, because it is durable in another way."""
        self._put(_Line(entry, None))

    def _put(self, line: _Line) -> None:
        self._added += 1
        self._bytes += len(line.entry.text)
        if self._files is None:
            self._queue.append(line)
            self._start_storing()
        else:
            self._new.append(line)
            if self._writing is None:
                self._writing = asyncio.create_task(self._write_new(), context=Context())

    async def flush(self) -> None:
        """Store all lines that were added so far.  Raises Problem ``busy`` if that fails."""
        last = self._added
        self._flushing += 1
        try:
            while self._ended < last:
                if not self._queue and self._writing is not None:
                    await asyncio.shield(self._writing)
                    continue
                storing = self._start_storing()
                self._wake.set()
                if not await asyncio.shield(storing):
                    raise unwritten()
        finally:
            self._flushing -= 1

    async def close(self) -> None:
        """Store all lines.  Those that cannot be stored stay in the files."""
        try:
            await self.flush()
        finally:
            for file in self._files or ():
                file.close()

    def _start_storing(self) -> asyncio.Task[bool]:
        """The task that stores the queue: a caller that is cancelled must not end an append whose lines the store may already have.

        Its context is not that of the request that began it, whose budget would count, and end, the work for others' lines.
        """
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_queue(), context=Context())
        return self._storing

    async def _write_new(self) -> None:
        """Make new lines durable, so that their responses leave.  Lines that cannot be written wait for the store."""
        try:
            while self._new:
                lines, self._new = self._new[:_GROUP], self._new[_GROUP:]
                file = self._file
                assert file is not None
                file.unstored += len(lines)  # before the first wait: the file is not emptied meanwhile
                try:
                    if self._after is None:
                        self._after = await self._last_number()
                    await asyncio.to_thread(file.add, [line.entry for line in lines], self._after)
                except Exception:
                    _log.exception("Lines of the audit log could not be buffered.")
                    file.unstored -= len(lines)
                    self._wake.set()
                else:
                    for line in lines:
                        line.file = file
                        line.finish()
                self._queue += lines
                if len(self._queue) >= _GROUP:
                    self._wake.set()
                self._start_storing()
        finally:
            self._writing = None

    async def _store_queue(self) -> bool:
        """Store the queue, group by group.  Returns False if that failed while somebody flushes the log."""
        try:
            while self._queue:
                if not self._is_urgent():
                    await self._pause()
                group, self._queue = self._queue[:_GROUP], self._queue[_GROUP:]
                try:
                    self._use_other_file()
                    await self._append([line.entry for line in group])
                except Exception as error:
                    _log.exception("The audit log could not be written.")
                    kept = [line for line in group if line.is_promised]
                    self._queue = kept + self._queue
                    self._end([line for line in group if not line.is_promised], error)
                    if self._flushing:
                        return False
                    if kept:
                        await self._pause()
                else:
                    self._end(group)
                    await self._look_up_number()
            return True
        finally:
            self._storing = None

    def _use_other_file(self) -> None:
        """Write further lines to the other file, if the log has all its lines, so that this one can be emptied."""
        if self._files is not None:
            other = self._files[self._file is self._files[0]]
            if not other.unstored:
                self._file = other

    async def _look_up_number(self) -> None:
        """Note how far the log goes: a start after a kill need not read what is before.  An earlier number is right, too."""
        if self._files is not None:
            try:
                self._after = await self._last_number()
            except Exception:
                _log.exception("The end of the audit log could not be read.")

    def _is_urgent(self) -> bool:
        """Whether to store lines at once: somebody waits for them, or another process would append what waits."""
        if self._durable and self._files is None:
            return True
        return bool(self._flushing) or len(self._queue) >= _GROUP or not all(line.is_promised for line in self._queue)

    async def _pause(self) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE):
                await self._wake.wait()

    def _end(self, lines: Sequence[_Line], error: Exception | None = None) -> None:
        """Forget lines that are stored, or that failed with an error."""
        self._ended += len(lines)
        for line in lines:
            self._bytes -= len(line.entry.text)
            line.finish(error)
            if line.file is not None:
                line.file.unstored -= 1
        for file in self._files or ():
            if not file.unstored:
                file.clear()


def unwritten() -> Problem:
    """The answer in place of one whose line cannot be durable."""
    return Problem("busy", UNWRITTEN)
