"""An id for each request: in the answer (``X-Request-Id``), and in every line of the log and of the audit log that the request causes.

An id that the caller sends is kept if it is a UUID or 16 to 64 hexadecimal digits.  Any other is replaced, because it could hold a name
or an id of a patient.  New ids are random: a counter would tell one caller how much others ask.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

HEADER: Final = b"x-request-id"
request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_ids: ContextVar[tuple[str, str] | None] = ContextVar("trace_ids", default=None)  # of the trace and the span of the request
_WELL_FORMED: Final = re.compile(rb"[0-9A-Fa-f]{16,64}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


_MANY: Final = 256  # ids taken from the system at a time: one at a time would cost most of what a request may cost here
_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)  # a forked process takes none of the ids of the process that it was forked from


def _fill() -> None:
    text = os.urandom(16 * _MANY).hex()
    _ids.extend([text[start : start + 32] for start in range(0, len(text), 32)])


def is_request_id(text: str) -> bool:
    """Whether this is the id of a request: a UUID, or 16 to 64 hexadecimal digits."""
    return text.isascii() and bool(_WELL_FORMED.fullmatch(text.encode()))


def take_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the id of a request with these headers, and make it the one that log lines of this context have."""
    for name, value in headers:
        if name == HEADER and _WELL_FORMED.fullmatch(value):
            request_id.set(value.decode("ascii"))
            return value
    if not _ids:
        _fill()
    id = _ids.pop()
    request_id.set(id)
    return id.encode()
