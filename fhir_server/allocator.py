"""Gives the memory of large requests back to the system.

glibc's allocator keeps what is freed for the next request.  Once a block of 8 MB was freed, it also takes such blocks from its heap,
where a small one behind them keeps all of it.  With other C libraries nothing changes.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_OWN_MAPPING: Final = 512 * 1024  # bytes from which a block has a mapping of its own, and returns to the system when it is freed
_KEPT_FREE: Final = 8 * 1024 * 1024  # at the end of the heap
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
