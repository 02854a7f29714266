"""The audit log: one R4 AuditEvent for each FHIR request, and one for each security event.

Security events are those of the sign-in, OAuth and portal pages and of the operator's commands.

No response leaves before its line is stored durably.  Lines that arrive while others are being stored are stored together in the
next commit, so many requests share one.  A write's line is stored in the write's own transaction: in the chain, or in a pending record
from which it is appended afterwards (:mod:`~fhir_server.audit.pending_lines`).  While a long write keeps an SQLite store from storing
lines, they are made durable in a file (:mod:`~fhir_server.audit.buffer_file`).  If a line cannot be stored, the answer is 503.  An
institution may choose otherwise (``FHIR_SERVER_AUDIT=batched``): then lines are stored four times a second, responses do not wait, and
a machine that fails loses the lines of the last moment.

All lines of a store form one keyed chain (:mod:`~fhir_server.audit.chain`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from fhir_server.audit import anchors
from fhir_server.audit.buffer_file import BufferFile, abandoned_buffers
from fhir_server.audit.chain import (
    BEGINS,
    LOG_NAME,
    NO_HEAD,
    UNWRITTEN,
    WRONG_KEY,
    Beginning,
    Chain,
    ChainKeys,
    Former,
    Head,
    NoBeginningError,
    Purged,
)
from fhir_server.audit.entries import purge_entry, request_entry, security_entry
from fhir_server.audit.left_lines import unstored
from fhir_server.audit.pending_lines import PendingLines
from fhir_server.audit.reading import last_number
from fhir_server.errors import Problem
from fhir_server.interactions.messages import AuditContext, RecordedWrite, Request
from fhir_server.request_ids import request_id
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry, Store, Transaction, system_now
from fhir_server.store.logs import HEAD, NOT_FIRST, PurgedLine

__all__ = ["LOG_NAME", "AuditLog", "read_former"]

_log = logging.getLogger("fhir_server")
_BATCH_SECONDS = 0.25
_GROUP = 1000  # lines in one commit
_MAX_WAITING = 10_000
_MAX_WAITING_BYTES = 32 * 1024 * 1024
_PAGE = 1000
_ATTEMPTS = 8
_PATIENCE = 0.02  # seconds that lines wait for the store before they are buffered
_BUFFER_STEP = 0.005  # seconds between looks for further lines to buffer


class _Waiting:
    """A line to be stored, who waits for it (None: nobody), and whether it is durable meanwhile: in the buffer file or a pending record."""

    __slots__ = ("entry", "is_buffered", "stored")

    def __init__(self, entry: LogEntry, stored: asyncio.Future[None] | None) -> None:
        self.entry, self.stored, self.is_buffered = entry, stored, bool(entry.pending)


class _Append:
    """One append to the chain.  ``is_linked``: whether the store has begun to store its lines."""

    __slots__ = ("_chain", "is_linked")

    def __init__(self, chain: Chain) -> None:
        self._chain, self.is_linked = chain, False

    def link(self, head: bytes | None, entries: Sequence[LogEntry]) -> tuple[Sequence[bytes], bytes | None]:
        self.is_linked = True
        return self._chain.link(head, entries)


class AuditLog:
    """Records requests and security events.  One per server process.

    ``durable``  whether each call returns only when its line is stored
    ``anchor_file``  where heads of the chain are written once a minute and at the end; None: nowhere
    ``beside``  the file of the store, beside which lines are buffered; None: they are not
    """

    def __init__(
        self,
        store: Store,
        keys: ChainKeys,
        *,
        durable: bool = True,
        anchor_file: Path | None = None,
        beside: Path | None = None,
        policy: str = "",
        now: Callable[[], int] = system_now,
    ) -> None:
        self._store = store
        self._chain = Chain(keys)
        self.pending = PendingLines(store, keys, self._append)
        self._durable = durable
        self._policy = policy
        self._anchors = anchors.AnchorFile(anchor_file, now) if anchor_file else None
        self._began = False
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._appending: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._beside = beside
        self._buffer = BufferFile(beside, keys) if beside and durable else None
        self._late: list[_Waiting] = []  # buffered while the store was storing other lines
        self._buffering: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Check that lines can be added, and how a chain begins if one must.

        Raises ValueError, with a message for the operator, if the head is missing or was made with an unknown key.
        """
        while True:
            head = await self._store.key_values.get(HEAD, LOG_NAME, 0)
            known = None if head is None else self._chain.keys.read_head(head)
            if head is not None and known is None:
                raise ValueError(WRONG_KEY)
            if known is not None and known.key == self._chain.keys.name:
                break
            try:
                former = await read_former(self._store, "The secret key was replaced." if known else "")
            except ValueError:
                if await self._store.key_values.get(HEAD, LOG_NAME, 0) == head:
                    raise
                continue  # another process has begun the chain meanwhile
            self._chain.beginning = Beginning(head, former)
            break
        self._began = True
        if self._beside is not None:
            for left in abandoned_buffers(self._beside, self._chain.keys):
                await self._append(await unstored(self._store, left.entries, left.after))
                left.remove()
        await self.pending.append()

    @property
    def keys(self) -> ChainKeys:
        """The keys of the chain."""
        return self._chain.keys

    async def head(self) -> Head | None:
        """The head of the chain, if there is one with a known key."""
        head = await self._store.key_values.get(HEAD, LOG_NAME, 0)
        return None if head is None else self._chain.keys.read_head(head)

    async def begin_again(self, reason: str) -> None:
        """Begin a new chain, whatever the head is, because its key or the head itself is lost.  The next line has the reason."""
        head = await self._store.key_values.get(HEAD, LOG_NAME, 0)
        self._chain.beginning = Beginning(head, await read_former(self._store, reason))
        self._began = True

    def with_write(self, request: Request, context: AuditContext) -> Callable[[Transaction, int], RecordedWrite | None]:
        """A function that adds a request's line, with its HTTP status, to a transaction.  It returns None if that is not possible.

        It raises Problem ``busy`` if too many lines wait.  After the commit, :meth:`append_recorded` must get its result.
        """

        def add(transaction: Transaction, status: int) -> RecordedWrite | None:
            if not self._began or not self._durable:
                return None
            entry = request_entry(request, context, status, self._policy)
            pending = transaction.log_at_commit(LOG_NAME, entry, self._chain.link, lambda: self.pending.seal(entry))
            if pending is None:
                return RecordedWrite(status)
            if self._is_full(pending):
                raise _unwritten()
            return RecordedWrite(status, pending) if pending.pending else None

        return add

    def append_recorded(self, recorded: RecordedWrite) -> None:
        """Append the line of a write that was committed, unless its transaction has done so.  Nobody waits for it: it is durable."""
        if recorded.pending is not None:
            self._put(_Waiting(recorded.pending, None))

    async def record_request(self, request: Request, context: AuditContext, status: int) -> None:
        """Record one request with its context and the HTTP status of the response.

        Raises Problem ``busy`` if the line cannot be stored.
        """
        await self._add(request_entry(request, context, status, self._policy))

    async def record_event(self, event: SecurityEvent, at: int) -> None:
        """Record a security event.  ``at`` is in microseconds since 1970 UTC.  Raises Problem ``busy`` if it cannot be stored."""
        await self._add(security_entry(event, at, self._policy, request_id.get()))

    async def record_purge(self, lines: Sequence[PurgedLine], purged: Purged, event: SecurityEvent, at: int, after: Head) -> None:
        """Remove these lines, the first of the log, and record it in the same transaction.

        ``after``: a head that this chain has had.  Raises Problem ``conflict`` if the log begins with other lines or another chain has
        begun; then nothing is changed.
        """

        def link(head: bytes | None, entries: Sequence[LogEntry]) -> tuple[list[bytes], bytes]:
            known = None if head is None else self._chain.keys.read_head(head)
            if known is None or known.key != after.key or known.seq < after.seq:
                raise Problem("conflict", NOT_FIRST)
            return self._chain.link(head, entries)

        await self.flush()
        await self._store.purge_log(LOG_NAME, lines, purge_entry(purged, event, at, self._policy), link)

    async def flush(self) -> None:
        """Store everything recorded so far.  Raises Problem ``busy`` if that fails."""
        while self._waiting or self._appending is not None:
            appending = self._start()
            self._hurry.set()
            await asyncio.shield(appending)
            if self._waiting and self._appending is None:
                raise _unwritten()

    async def close(self) -> None:
        """Store everything recorded so far, and the anchor."""
        try:
            await self.flush()
        finally:
            if self._buffer is not None:
                self._buffer.close()
        await self._anchor(at_once=True)

    async def _add(self, entry: LogEntry) -> None:
        if self._is_full(entry):
            if self._durable:
                raise _unwritten()
            await self.flush()  # then this answer waits
        stored = asyncio.get_running_loop().create_future() if self._durable else None
        self._put(_Waiting(entry, stored))
        if stored is not None:
            await stored

    def _is_full(self, entry: LogEntry) -> bool:
        return len(self._waiting) + len(self._late) >= _MAX_WAITING or self._bytes + len(entry.text) > _MAX_WAITING_BYTES

    def _put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._bytes += len(waiting.entry.text)
        self._start()

    def _start(self) -> asyncio.Task[None]:
        """The task that stores what waits: a caller that is cancelled must not end an append whose lines the store may already have."""
        if self._appending is None:
            self._appending = asyncio.create_task(self._append_waiting())
        return self._appending

    async def _append_waiting(self) -> None:
        """Store what waits, group by group, until nothing does.  Each entry is passed to the store once, unless that fails."""
        try:
            while self._waiting:
                if not self._durable:
                    await self._pause()
                group = self._take(_GROUP)
                try:
                    await self._append_or_buffer(group)
                except Exception as error:
                    _log.exception("The audit log could not be written.")
                    kept = [waiting for waiting in group if waiting.is_buffered or not self._durable]
                    self._put_back(kept)
                    _finish(group, error)
                    if kept:
                        if self._hurry.is_set():
                            return
                        if self._durable:
                            await self._pause()
                else:
                    _finish(group, None)
            if self._buffer is not None:
                self._buffer.clear()
        finally:
            self._appending = None
            self._hurry.clear()

    def _take(self, limit: int) -> list[_Waiting]:
        group, self._waiting = self._waiting[:limit], self._waiting[limit:]
        self._bytes -= sum(len(waiting.entry.text) for waiting in group)
        return group

    def _put_back(self, group: list[_Waiting]) -> None:
        self._waiting = group + self._waiting
        self._bytes += sum(len(waiting.entry.text) for waiting in group)

    async def _append_or_buffer(self, group: list[_Waiting]) -> None:
        """Store a group.  If that takes long, the group and what comes meanwhile are buffered, and their responses leave."""
        append, watching = _Append(self._chain), None
        if self._buffer is not None:
            watching = asyncio.get_running_loop().call_later(_PATIENCE, self._start_buffering, self._buffer, group, append)
        try:
            await self._append([waiting.entry for waiting in group], append)
        finally:
            if watching is not None:
                watching.cancel()
            if (buffering := self._buffering) is not None:
                self._buffering = None
                await buffering
                self._waiting, self._late = self._late + self._waiting, []

    def _start_buffering(self, buffer: BufferFile, group: list[_Waiting], append: _Append) -> None:
        self._buffering = asyncio.create_task(self._buffer_meanwhile(buffer, group, append))

    async def _buffer_meanwhile(self, buffer: BufferFile, group: list[_Waiting], append: _Append) -> None:
        """Buffer a group that the store has, and all lines that come before it has stored them."""
        task = asyncio.current_task()
        try:
            after = await last_number(self._store)
            if not append.is_linked:  # otherwise the number may be that of a line of the group
                await _buffer_lines(buffer, group, after)
            while self._buffering is task:
                await asyncio.sleep(_BUFFER_STEP)
                if self._waiting:
                    late, self._waiting = self._waiting, []
                    self._late += late
                    await _buffer_lines(buffer, late, after)
        except Exception:  # they wait for the store
            _log.exception("Lines of the audit log could not be buffered.")

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_BATCH_SECONDS):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _append(self, entries: list[LogEntry], append: _Append | None = None) -> None:
        if not entries:
            return
        if not self._began:
            await self.prepare()
        for _ in range(_ATTEMPTS):
            try:
                left_out = await self._store.append_log(LOG_NAME, entries, (append or _Append(self._chain)).link)
            except NoBeginningError:  # another process wrote since this one read the lines
                await self.prepare()
            else:
                break
        else:
            raise ValueError(NO_HEAD)
        if left_out:
            await self._append(await self.pending.removed(left_out))
        await self._anchor()

    async def _anchor(self, *, at_once: bool = False) -> None:
        if self._anchors is not None and self._anchors.is_due(at_once=at_once) and (head := await self.head()) is not None:
            self._anchors.write(head)


async def _buffer_lines(buffer: BufferFile, lines: list[_Waiting], after: int) -> None:
    """Make lines durable in the buffer file, unless they are, so that their responses leave."""
    new = [waiting for waiting in lines if not waiting.is_buffered]
    if not new:
        return
    await asyncio.to_thread(buffer.add, [waiting.entry for waiting in new], after)
    for waiting in new:
        waiting.is_buffered = True
    _finish(new, None)


def _finish(group: list[_Waiting], error: Exception | None) -> None:
    for waiting in group:
        if waiting.stored is None or waiting.stored.done():
            continue
        if error is None:
            waiting.stored.set_result(None)
        else:
            problem = _unwritten()
            problem.__cause__ = error
            waiting.stored.set_exception(problem)


def _unwritten() -> Problem:
    return Problem("busy", UNWRITTEN)


async def read_former(store: Store, reason: str = "") -> Former:
    """What line 0 of a chain says about the lines before it.

    Raises ValueError if there is a chain already, unless the operator gives a ``reason`` to begin another.
    """
    digest, count, after = sha256(), 0, 0
    while lines := await store.read_log(LOG_NAME, after, _PAGE):
        for number, line in lines:
            if line.startswith(BEGINS) and not reason:
                raise ValueError(NO_HEAD)
            digest.update(line + b"\n")
            count, after = count + 1, number
    return Former(count, digest.hexdigest(), reason)
