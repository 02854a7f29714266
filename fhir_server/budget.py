"""What one request may spend: seconds of work, rows and bytes.  All entries of a batch or transaction share one budget.

Work is what keeps others from being served: steps in the event loop, jobs in other threads and processes, and statements of
the store.  Waiting costs nothing.  Only the caller's own request and the rows that the caller sees are counted, so that a
budget tells nothing about hidden data.

:func:`metered` runs a request on its budget and makes it the current one; stores and Views find it with :func:`current`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from time import perf_counter, thread_time
from typing import Any, Final, NamedTuple, TypeVar

from fhir_server.errors import Problem
from fhir_server.memory import Held

S = TypeVar("S")
T = TypeVar("T")
SLICE: Final = 0.01  # seconds that a request works in the event loop before it lets others go on
_SMALL: Final = 0.05  # seconds of work up to which a request's time is the clock's


class BudgetLimits(NamedTuple):
    """The largest amounts that a request may spend."""

    seconds: float = inf
    rows: float = inf
    size: float = inf


class _Spent:
    """What has been spent, on all threads.  ``size`` and ``body`` are part of what the client's requests hold together."""

    __slots__ = ("body", "held", "rows", "seconds", "size")

    def __init__(self, held: Held) -> None:
        self.held = held
        self.seconds, self.rows, self.size, self.body = 0.0, 0, 0, 0


class Budget:
    """The budget of one request.

    ``held``       what the client's requests hold together
    ``next_turn``  waits until the request may go on; by default, others go on once
    ``is_watched`` whether its time may soon be used up: not while the request is small
    ``may_wait``   whether this part of the work runs in the event loop, where others wait
    """

    __slots__ = ("_began", "_cpu_began", "_limits", "_may_wait", "_next_turn", "_spent", "is_watched")

    def __init__(
        self,
        limits: BudgetLimits,
        next_turn: Callable[[], Awaitable[None]] | None = None,
        spent: _Spent | None = None,
        *,
        held: Held | None = None,
        may_wait: bool = True,
    ) -> None:
        self._next_turn = next_turn
        self._limits = limits
        self._spent = spent or _Spent(held or Held())
        self._may_wait = may_wait
        self._began: float | None = None
        self._cpu_began: float | None = None
        self.is_watched = not may_wait or limits.seconds < 1

    def begin(self) -> None:
        """Begin a step of work."""
        self._began = perf_counter()
        if self._spent.seconds > _SMALL:
            self.is_watched = True
        if self.is_watched:
            self._cpu_began = thread_time()

    def end(self) -> None:
        """End the step, and charge its time."""
        if self._began is not None:
            self._spent.seconds += self._running()
            self._began = self._cpu_began = None

    def _running(self) -> float:
        """The seconds of the step that is being done: CPU time, once the request is no small one, because to ask for it takes long."""
        if self._cpu_began is not None:
            return thread_time() - self._cpu_began
        return 0.0 if self._began is None else perf_counter() - self._began

    def charge(self, seconds: float) -> None:
        """Charge work that was done elsewhere: by another process, or by a database."""
        self._spent.seconds += seconds

    @property
    def client(self) -> Held:
        """Whose request it is: what the client's requests hold together."""
        return self._spent.held

    @property
    def spent(self) -> float:
        """The seconds of work so far."""
        return self._spent.seconds

    def in_thread(self) -> Budget:
        """The same budget for a part of the work in another thread, which cannot let others go on."""
        return Budget(self._limits, spent=self._spent, may_wait=False)

    def remaining(self) -> float:
        """The seconds of work that remain.  Raises Problem ``too_costly`` if none do."""
        remaining = self._limits.seconds - self._spent.seconds - self._running()
        if remaining <= 0:
            raise self.out_of_time()
        return remaining

    def out_of_time(self) -> Problem:
        """The Problem of a request whose time is used up."""
        return Problem("too_costly", f"This request has used up its {self._limits.seconds:g} seconds of work. Ask for less at once.")

    def take(self, rows: int, size: int) -> None:
        """Charge rows for the answer and the bytes of their bodies.

        Raises Problem ``too_costly`` if any limit is reached, ``busy`` if the process has no memory for them.
        """
        if self.is_watched:
            self.remaining()
        spent = self._spent
        spent.rows += rows
        spent.held.take(size)
        spent.size += size
        if spent.rows > self._limits.rows:
            raise Problem("too_costly", f"This request has used up its {self._limits.rows} resources. Ask for less at once.")
        if spent.held.size > self._limits.size:
            raise Problem("too_costly", f"The resources of the answer exceed {self._limits.size} bytes. Ask for less at once.")

    def release(self) -> None:
        """The answer has been sent, or there is none: the client's next requests may hold as much."""
        spent = self._spent
        spent.held.give_back(spent.size)
        spent.held.give_back_body(spent.body)
        spent.size = spent.body = 0

    def take_for_body(self, size: int) -> None:
        """Hold so many bytes more for the request's body.  Raises Problem ``busy`` if there is no room."""
        self._spent.held.take_for_body(size, self._spent.body)
        self._spent.body += size

    @property
    def size(self) -> int:
        """The bytes of the request's body and of the resources in its answer, if they are large."""
        return self._spent.body + self._spent.size

    def require_room(self, size: int) -> None:
        """Require that a body of this size, or several, can still be part of the answer.  Raises Problem ``too_costly``."""
        if self._spent.held.size + size > self._limits.size:
            self.take(0, size)

    @property
    def is_due(self) -> bool:
        """Whether this step of work has taken its share."""
        return self._began is not None and perf_counter() - self._began > SLICE

    async def give_way(self) -> None:
        """Let others go on if this step of work has taken its share.  Raises Problem ``too_costly`` if the time is used up."""
        if self.is_due:
            self.remaining()
            await self.pause()

    async def pause(self) -> None:
        """Let others go on."""
        if not self._may_wait:
            return
        if self._next_turn is None:
            await asyncio.sleep(0)
        else:
            await self._next_turn()


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current() -> Budget | None:
    """The budget of the request that is being handled; None outside of requests, where nothing is limited."""
    return _current.get()


async def give_way() -> None:
    """Let others go on if the current request has taken its share."""
    if (budget := _current.get()) is not None:
        await budget.give_way()


async def each(function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """The results of the function for each item.  Lets others go on after items that have taken long together."""
    budget = _current.get()
    if budget is None:
        return [function(item) for item in items]
    results: list[T] = []
    for item in items:
        results.append(function(item))
        if budget.is_due:
            await budget.give_way()
    return results


@contextmanager
def unbroken() -> Iterator[None]:
    """A part of the work during which the current request lets nobody go on."""
    budget = _current.get()
    token = _current.set(budget and budget.in_thread())
    try:
        yield
    finally:
        _current.reset(token)


def on_account(job: Callable[..., T]) -> Callable[..., T]:
    """Return the job for another thread, where it spends from the budget of the current request."""
    budget = _current.get()
    if budget is None:
        return job
    part = budget.in_thread()

    def run(*args: Any) -> T:
        token = _current.set(part)
        part.begin()
        try:
            return job(*args)
        finally:
            part.end()
            _current.reset(token)

    return run


def metered(work: Coroutine[Any, Any, T], budget: Budget) -> Awaitable[T]:
    """Run ``work`` on this budget, which is the current one meanwhile."""
    return _Steps(work, budget)


class _Steps:
    """Awaits a coroutine and charges the time of each of its steps in the event loop."""

    __slots__ = ("_budget", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], budget: Budget) -> None:
        self._work = work
        self._budget = budget

    def __await__(self) -> Generator[Any, Any, Any]:
        budget, step = self._budget, self._work.send
        argument: Any = None
        token = _current.set(budget)
        try:
            while True:
                budget.begin()
                try:
                    waits_for = step(argument)
                except StopIteration as finished:
                    return finished.value
                finally:
                    budget.end()
                try:
                    argument, step = (yield waits_for), self._work.send
                except BaseException as error:
                    argument, step = error, self._work.throw
        finally:
            _current.reset(token)
