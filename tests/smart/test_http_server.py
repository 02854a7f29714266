"""Request smuggling and forged forwarding headers, tested on the HTTP server over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from fhir_server.cli.serve import _uvicorn_options
from tests.waiting import HANG, wait_until

HOST = b"Host: records.example\r\n"
LAST = b"Connection: close\r\n"
SECOND_REQUEST = b"GET /smuggled HTTP/1.1\r\n" + HOST + LAST + b"\r\n"


class Wire:
    """An application that records its requests, run with the server options of the ``serve`` command."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, str, str]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        changes = {"app": self, "factory": False, "lifespan": "off", "log_level": "critical"}
        config = uvicorn.Config(**_uvicorn_options("127.0.0.1", 0) | changes)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append((scope["path"], scope["client"][0], scope["scheme"]))
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def sent(self, raw: bytes) -> list[int]:
        """Send bytes on one connection, read until the server closes it, and return the statuses of the responses."""
        self.reached.clear()
        with socket.create_connection(self.listener.getsockname(), timeout=HANG) as connection:
            connection.sendall(raw)
            answered = b""
            while part := connection.recv(65536):
                answered += part
        return [int(line.split()[1]) for line in answered.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    wire = Wire()
    wire.thread.start()
    wait_until(lambda: wire.server.started, "the server starts")
    yield wire
    wire.server.should_exit = True
    wire.thread.join(10)


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ],
)
def test_request_with_ambiguous_length_is_refused_with_its_successor(wire: Wire, fields: bytes) -> None:
    statuses = wire.sent(b"POST /first HTTP/1.1\r\n" + HOST + fields + b"\r\n0\r\n\r\n" + SECOND_REQUEST)
    assert statuses[-1] == 400
    assert "/smuggled" not in [path for path, _, _ in wire.reached]


def test_two_valid_requests_on_one_connection_are_both_served(wire: Wire) -> None:
    assert wire.sent(b"POST /first HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n12345" + SECOND_REQUEST) == [200, 200]
    assert [path for path, _, _ in wire.reached] == ["/first", "/smuggled"]


def test_client_address_is_the_last_forwarded_for_entry(wire: Wire) -> None:
    wire.sent(b"GET /x HTTP/1.1\r\n" + HOST + LAST + b"X-Forwarded-For: 6.6.6.6, 9.9.9.9\r\nX-Real-IP: 6.6.6.6\r\n\r\n")
    assert [client for _, client, _ in wire.reached] == ["9.9.9.9"]


def test_forwarded_headers_are_trusted_from_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    believed = str(uvicorn.Config(**_uvicorn_options("0.0.0.0", 80)).forwarded_allow_ips)
    assert set(believed.split(",")) <= {"127.0.0.1", "::1"}
