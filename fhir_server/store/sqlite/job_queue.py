"""The jobs that wait for the writer: those of one client one behind the other, and clients in turn.

So a client that sends many long transactions at once delays a write of another by one or two of them, and not by all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from threading import Condition
from typing import Generic, TypeVar

J = TypeVar("J")


class JobQueue(Generic[J]):
    """A queue between threads."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[J]] = {}  # clients in the order of turns
        self._changed = Condition()
        self._is_closed = False

    def put(self, client: Hashable, job: J) -> None:
        """Add a job of a client.  Raises RuntimeError after :meth:`close`."""
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the store is closed")
            self._waiting.setdefault(client, deque()).append(job)
            self._changed.notify()

    def take(self, *, wait: bool = False) -> J | None:
        """The next job.  None if there is none; with ``wait``, only if there will be none because the queue was closed."""
        with self._changed:
            while wait and not self._waiting and not self._is_closed:
                self._changed.wait()
            if not self._waiting:
                return None
            client = next(iter(self._waiting))
            waiting = self._waiting.pop(client)
            job = waiting.popleft()
            if waiting:
                self._waiting[client] = waiting  # to the end
            return job

    @property
    def is_empty(self) -> bool:
        """Whether no job waits."""
        return not self._waiting

    def close(self) -> None:
        """Take no more jobs."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
