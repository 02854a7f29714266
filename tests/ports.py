"""Ports for servers that tests start as separate processes."""

from __future__ import annotations

import socket
from typing import Final

_RESERVED: Final[list[socket.socket]] = []


def reserved_port() -> int:
    """Return a free port of 127.0.0.1.  The system assigns it to no other process until this process ends.

    A socket that is bound to the port, but does not listen, reserves it.  A server that sets SO_REUSEADDR, as most
    servers do, can still bind the port, any number of times.  On Linux at most one socket on a port listens.
    The system never chooses a reserved port for a program that asks for any free port.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _RESERVED.append(held)
    return int(held.getsockname()[1])
