"""``/livez``: the process answers.  ``/readyz``: it is to get requests: the store answers, and the server is not about to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from fhir_server.store import Store

_SECONDS: Final = 2.0  # in which the store must answer
_log = logging.getLogger("fhir_server")


class Health:
    """The state of one server process.  ``is_draining``: it was told to stop and still finishes requests.

    ``operation`` returns ``normal``, ``read-only`` or ``maintenance``.
    """

    def __init__(self, store: Store, operation: Callable[[], str] = lambda: "normal") -> None:
        self._store = store
        self._operation = operation
        self.is_draining = False

    async def reason(self) -> str:
        """Why the server is not to get requests; "" if it is."""
        if self.is_draining:
            return "draining"
        if self._operation() == "maintenance":
            return "maintenance"
        try:
            await asyncio.wait_for(self._store.key_values.get("store-fact", "readiness", 0), _SECONDS)
        except TimeoutError:
            return "the store does not answer in time"
        except Exception:
            _log.warning("The store does not answer.", exc_info=True)
            return "the store does not answer"
        return ""

    @property
    def text(self) -> str:
        """What ``/readyz`` says while there is no reason against requests."""
        return "ready" if self._operation() == "normal" else f"ready, {self._operation()}"

    @contextmanager
    def drain_on_sigterm(self, seconds: int) -> Iterator[None]:
        """On SIGTERM, be not ready for these seconds and only then let the web server stop, so that a balancer sends no more requests."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        def drain(number: int, frame: FrameType | None) -> None:
            is_first, self.is_draining = not self.is_draining, True
            if not callable(stop):
                raise SystemExit(0)
            if is_first and seconds:
                loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)
            else:
                stop(number, frame)

        signal.signal(signal.SIGTERM, drain)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, stop)
