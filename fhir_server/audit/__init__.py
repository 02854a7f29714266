"""The audit log: one R4 AuditEvent for each FHIR request, and one for each security event.

Security events are those of the sign-in, OAuth and portal pages and of the operator's commands.

No response leaves before its line is durable.  A write's line is stored in the write's own transaction: in the chain, or in a pending
record from which it is appended afterwards (:mod:`~fhir_server.audit.pending_lines`).  Other lines are stored in groups, so that many
requests share a commit.  Beside an SQLite store they are durable in a file first, so that no response waits for somebody's long write
(:mod:`~fhir_server.audit.line_queue`).  If a line cannot be made durable, the answer is 503.  An institution may choose otherwise
(``FHIR_SERVER_AUDIT=batched``): then lines are stored four times a second, responses do not wait, and a machine that fails loses the
lines of the last moment.

All lines of a store form one keyed chain (:mod:`~fhir_server.audit.chain`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from fhir_server import budget
from fhir_server.audit import anchors
from fhir_server.audit.buffer_file import BufferFile, abandoned_buffers
from fhir_server.audit.chain import (
    BEGINS,
    LOG_NAME,
    NO_HEAD,
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
from fhir_server.audit.line_queue import LineQueue, unwritten
from fhir_server.audit.pending_lines import PendingLines
from fhir_server.audit.reading import last_number
from fhir_server.audit.request_events import bundle_entry
from fhir_server.errors import Problem
from fhir_server.interactions.messages import AuditContext, RecordedWrite, Request
from fhir_server.request_ids import request_id
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry, Store, Transaction, system_now
from fhir_server.store.logs import HEAD, NOT_FIRST, PurgedLine

__all__ = ["LOG_NAME", "AuditLog", "read_former"]

_PAGE = 1000
_ATTEMPTS = 8


class AuditLog:
    """Records requests and security events.  One per server process.

    ``durable``  whether each call returns only when its line is durable
    ``anchor_file``  where heads of the chain are written once a minute and at the end; None: nowhere
    ``beside``  the file of the store, beside which lines are durable before they are stored; None: lines wait for the store
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
        self._beside = beside
        files = (BufferFile(beside, keys), BufferFile(beside, keys)) if beside and durable else None
        self._lines = LineQueue(self._append, lambda: last_number(store), durable=durable, files=files)

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
            entry = request_entry(request, context, status, self._policy, [bundle_entry(one) for one in context.entries])
            pending = transaction.log_at_commit(LOG_NAME, entry, self._chain.link, lambda: self.pending.seal(entry))
            if pending is None:
                return RecordedWrite(status)
            if self._lines.is_full(pending):
                raise unwritten()
            return RecordedWrite(status, pending) if pending.pending else None

        return add

    def append_recorded(self, recorded: RecordedWrite) -> None:
        """Append the line of a write that was committed, unless its transaction has done so.  Nobody waits for it: it is durable."""
        if recorded.pending is not None:
            self._lines.put(recorded.pending)

    async def record_request(self, request: Request, context: AuditContext, status: int) -> None:
        """Record one request with its context and the HTTP status of the response.

        Raises Problem ``busy`` if the line cannot be stored.
        """
        entries = await budget.each(bundle_entry, context.entries) if context.entries else []
        await budget.give_way()
        await self._lines.add(request_entry(request, context, status, self._policy, entries))

    async def record_event(self, event: SecurityEvent, at: int) -> None:
        """Record a security event.  ``at`` is in microseconds since 1970 UTC.  Raises Problem ``busy`` if it cannot be stored."""
        await self._lines.add(security_entry(event, at, self._policy, request_id.get()))

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
        await self._lines.flush()

    async def close(self) -> None:
        """Store everything recorded so far, and the anchor."""
        await self._lines.close()
        await self._anchor(at_once=True)

    async def _append(self, entries: list[LogEntry]) -> None:
        if not entries:
            return
        if not self._began:
            await self.prepare()
        for _ in range(_ATTEMPTS):
            try:
                left_out = await self._store.append_log(LOG_NAME, entries, self._chain.link)
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
