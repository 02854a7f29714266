"""Ports for servers that tests start as processes of their own."""

from __future__ import annotations

import socket
from typing import Final

_RESERVED: Final[list[socket.socket]] = []


def reserved_port() -> int:
    """A free port of 127.0.0.1 that the system gives to no other process until this one ends.

    A socket stays bound to it and does not listen.  A server that sets SO_REUSEADDR, as servers do, may then bind it too
    (Linux: of the sockets on one port at most one listens), any number of times; a port that is chosen by the system may not be it.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _RESERVED.append(held)
    return int(held.getsockname()[1])
