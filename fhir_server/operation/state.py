"""In which operation the server is: normal, read-only, or maintenance.

The command stores a record.  Each process reads it once a second, and before a write if what it knows is older than ``MAX_AGE``: so no
process begins a write by knowledge that is older, and a request pays nothing otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final, get_args

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.settings import OperationLevel
from fhir_server.store import Store

LEVELS: Final[tuple[OperationLevel, ...]] = get_args(OperationLevel)
"""From the least strict to the strictest; the index is the value of the metric."""

KIND: Final = "operation"
MAX_AGE: Final = 2.0  # seconds
_INTERVAL: Final = 1.0
READ_ONLY: Final = "The server is read-only for now: records can be read, and nothing can be changed. Try again later."
MAINTENANCE: Final = "The server is closed for maintenance. Try again later."
_log = logging.getLogger("fhir_server")


class Operation(msgspec.Struct, frozen=True):
    """What an operator asked for, when (microseconds since 1970 UTC), and what people are told besides."""

    level: OperationLevel = "normal"
    since: int = 0
    notice: str = ""


async def find_operation(store: Store) -> Operation:
    """Return what an operator asked of all processes on this store."""
    text = await store.key_values.get(KIND, "", 0)
    return Operation() if text is None else msgspec.json.decode(text, type=Operation)


async def set_operation(store: Store, operation: Operation) -> None:
    """Ask all processes on this store for an operation."""
    await store.key_values.put(KIND, "", msgspec.json.encode(operation), MAX_INSTANT)


class OperationState:
    """What one process knows.  ``store`` has what is asked of all processes.

    ``least``    the level of the process's settings
    ``report``   is told the index of each level that was read; a server has one, and writes changes to its log
    ``refuses``  the levels at which nothing may be written

    Until :meth:`begin`, everything is allowed: a server prepares.
    """

    def __init__(
        self,
        least: OperationLevel = "normal",
        report: Callable[[int], None] | None = None,
        refuses: tuple[OperationLevel, ...] = ("read-only", "maintenance"),
    ) -> None:
        self.store: Store | None = None
        self._least: OperationLevel = least
        self._report = report
        self._refuses = refuses
        self._has_begun = False
        self.operation = Operation()
        self.read_at = 0.0

    @property
    def is_read_only(self) -> bool:
        """Whether records must not change; for a server also in maintenance."""
        return self.operation.level in self._refuses

    @property
    def is_closed(self) -> bool:
        """Whether everything is refused."""
        return self.operation.level == "maintenance"

    async def begin(self) -> None:
        """From now on, what is asked for holds.  Raises what the store raises."""
        self._has_begun = True
        await self.refresh()

    async def refresh(self) -> None:
        """Read what is asked for.  Raises what the store raises."""
        if not self._has_begun or self.store is None:
            return
        found = await find_operation(self.store)
        if LEVELS.index(found.level) < LEVELS.index(self._least):
            found = Operation(self._least, found.since, found.notice)
        if self._report and found.level != self.operation.level:
            _log.warning("The server's operation is now %s.", found.level)
        self.operation, self.read_at = found, monotonic()
        if self._report:
            self._report(LEVELS.index(found.level))

    async def require_writable(self) -> None:
        """Raises Problem ``read_only`` if nothing may be written, ``busy`` if that cannot be known."""
        if self._has_begun and monotonic() - self.read_at > MAX_AGE:
            try:
                await self.refresh()
            except Problem:
                raise
            except Exception as error:
                raise Problem("busy", "The server is busy; try again.") from error
        if self.is_read_only:
            raise Problem("read_only", f"{READ_ONLY} {self.operation.notice}".strip())

    async def keep_fresh(self) -> None:
        """Read what is asked for once a second; never returns.  While the store does not answer, what was known last holds."""
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.refresh()
            except Exception:
                _log.warning("The store does not say in which operation the server is to be.", exc_info=True)
