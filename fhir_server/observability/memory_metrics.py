"""How much memory is in use, apart from what the process has from the system: whether memory grows because something is kept, or
because the allocators keep free space for later."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of glibc (mallinfo(3))."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


@cache
def _mallinfo2() -> Any:
    """The function of glibc 2.33 or later; None with another library."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    found.restype = _Mallinfo2
    return found


def malloc_in_use() -> int | None:
    """Bytes that malloc has given out: SQLite's caches and large objects of Python.  None if the C library does not say."""
    function = _mallinfo2()
    if function is None:
        return None
    info = function()
    return int(info.uordblks + info.hblkhd)


class MemoryInUse(Collector):
    """Two numbers of this process, read when they are asked for."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        blocks = "Blocks of memory that Python has allocated; it rises for as long as something is kept that is not needed"
        yield GaugeMetricFamily("fhir_server_python_blocks", blocks, value=sys.getallocatedblocks())
        if (used := malloc_in_use()) is not None:
            yield GaugeMetricFamily(
                "fhir_server_malloc_used_bytes", "Bytes in use of malloc: SQLite, and Python's large objects", value=used
            )
