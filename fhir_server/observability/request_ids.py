"""An id for each request: in the answer (``X-Request-Id``), and in every line of the log that the request causes.

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
_WELL_FORMED: Final = re.compile(rb"[0-9A-Fa-f]{16,64}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def take_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id of a request with these headers, and make it the one that log lines of this context have."""
    sent = next((value for name, value in headers if name == HEADER), b"")
    id = sent.decode("ascii") if sent and _WELL_FORMED.fullmatch(sent) else os.urandom(16).hex()
    request_id.set(id)
    return id
