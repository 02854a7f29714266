"""Purges the audit log by age: its first lines are removed, in steps, while servers write to it.

The log is verified first: a log that is not what the server wrote is not purged, because what shows that would be lost.  Each step
removes lines and appends one line that says so (:class:`~fhir_server.audit.chain.Purged`), in one transaction.  So the log verifies
after each step, and an interrupted purge is continued by another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from fhir_server.audit import LOG_NAME, AuditLog
from fhir_server.audit.anchors import Anchor
from fhir_server.audit.chain import Head, Purged, Remaining, parse_line
from fhir_server.audit.entries import keys_of_line, recorded_at
from fhir_server.audit.reading import newest_purge
from fhir_server.audit.verification import verify
from fhir_server.clock import instant_text
from fhir_server.errors import Problem
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store
from fhir_server.store.logs import NOT_FIRST, PurgedLine

_PAGE: Final = 1000
_STEP: Final = 2000  # lines that one transaction removes; others wait for it


class PurgePlan(NamedTuple):
    """What a purge would remove.

    ``lines``  how many; ``first`` and ``last``: the numbers of the first and last of them (0: none)
    ``after``  (number, MAC) in its chain of the line before them; (-1, "") if there is none
    ``formers``  see :class:`~fhir_server.audit.chain.Purged`
    ``head``   the end of the chain before they were looked for
    ``steps``  the number of the first line of each step
    """

    before: int
    lines: int
    first: int
    last: int
    after: tuple[int, str]
    formers: tuple[Remaining, ...]
    head: Head
    steps: tuple[int, ...]


async def plan(
    store: Store, log: AuditLog, before: int, anchors: list[Anchor], archive: Callable[[int, bytes], None] | None = None
) -> PurgePlan:
    """Find the first lines of the log that were recorded before an instant, up to the first that was not.

    Each of them is passed to ``archive``.  Raises ValueError, with a message for the operator, if the log does not verify, or if the
    chain does not go on with the present key: a line about a purge cannot begin a chain.
    """
    head = await log.head()
    if head is None or head.key != log.keys.name:
        raise ValueError("No line has been written with the present FHIR_SERVER_SECRET_KEY yet. Start a server first.")
    result = await verify(store, log.keys, anchors)
    if result.count:
        raise ValueError(f"The audit log is not what this server wrote, so nothing is purged: {result.findings[0]}")
    purge = await newest_purge(store)
    after = (purge.purged.seq, purge.purged.mac) if purge and purge.purged else (-1, "")
    count = first = last = remaining = 0
    is_old = True
    digest = sha256()
    formers: list[Remaining] = []
    steps: list[int] = []
    async for number, text in _lines(store):
        is_old = is_old and (at := recorded_at(text)) is not None and at < before
        if is_old:
            if count % _STEP == 0:
                steps.append(number)
            count, first, last = count + 1, first or number, number
            if archive is not None:
                archive(number, text)
            continue
        line = parse_line(text)
        if line is not None and line.former is not None:
            formers.append(Remaining(line.mac, remaining, digest.hexdigest()))
        remaining += 1
        digest.update(text + b"\n")
    return PurgePlan(before, count, first, last, after, tuple(formers), head, tuple(steps))


async def purge(store: Store, log: AuditLog, found: PurgePlan, event: SecurityEvent, now: Callable[[], int]) -> None:
    """Remove the lines that were found, and record it with this event.

    Raises Problem ``conflict`` if another purge or a new chain began meanwhile; what was removed until then is recorded.
    """
    last = await newest_purge(store)
    total = last.purged.total if last and last.purged else 0
    after = 0
    for first in found.steps:
        lines = tuple([(number, text) for number, text in await store.read_log(LOG_NAME, after, _STEP) if number <= found.last])
        if not lines or lines[0][0] != first:  # else both would go on, with totals that know nothing of each other
            raise Problem("conflict", NOT_FIRST)
        after, text = lines[-1]
        line = parse_line(text)
        total += len(lines)
        purged = Purged(
            len(lines), total, after, line.seq if line else -1, line.mac if line else "",
            instant_text(found.before), found.last, found.formers,
        )  # fmt: skip
        detail = event.detail | {"lines": str(len(lines)), "through": str(after)}
        recorded = msgspec.structs.replace(event, detail=detail)
        removed = [PurgedLine(number, keys_of_line(text)) for number, text in lines]
        await log.record_purge(removed, purged, recorded, now(), found.head)


async def _lines(store: Store) -> AsyncIterator[tuple[int, bytes]]:
    after = 0
    while page := await store.read_log(LOG_NAME, after, _PAGE):
        for number, text in page:
            yield number, text
        after = page[-1][0]
