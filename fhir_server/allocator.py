"""Gives the memory of large requests back to the system.

glibc's allocator keeps what is freed for the next request.  Once a block of 8 MB was freed, it also takes such blocks from its heap,
where a small one behind them keeps all of it.  With other C libraries nothing changes.
"""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress
from functools import cache
from typing import Any, Final

_OWN_MAPPING: Final = 512 * 1024  # bytes from which a block has a mapping of its own, and returns to the system when it is freed
_KEPT_FREE: Final = 8 * 1024 * 1024  # at the end of the heap
_LARGE: Final = 4 * 1024 * 1024  # bytes that a request worked on, after which free memory goes back to the system
_PAUSE: Final = 1.0  # seconds from there: large requests often come together
_ARENAS: Final = 2  # heaps: threads that allocate at the same time are few
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def configure_allocator() -> None:
    """Let large blocks return to the system.  Call it before threads start."""
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_M_MMAP_THRESHOLD, _OWN_MAPPING), (_M_TRIM_THRESHOLD, _KEPT_FREE), (_M_ARENA_MAX, _ARENAS)):
            library.mallopt(parameter, value)


@cache
def _malloc_trim() -> Any:
    """The function of glibc; None with another library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None


def give_back_memory() -> None:
    """Give all free pages back to the system.  Others go on meanwhile, also in this process's other threads."""
    if (trim := _malloc_trim()) is not None:
        trim(0)


class FreeMemory:
    """Gives free memory back to the system a moment after large requests.

    What they leave is many free blocks between others, which the allocator keeps otherwise.
    """

    def __init__(self) -> None:
        self._is_due = False

    def after(self, size: int) -> None:
        """A request that has worked on so many bytes has ended."""
        if size < _LARGE or self._is_due:
            return
        self._is_due = True
        asyncio.get_running_loop().call_later(_PAUSE, self._give_back)

    def _give_back(self) -> None:
        self._is_due = False
        asyncio.get_running_loop().run_in_executor(None, give_back_memory)
