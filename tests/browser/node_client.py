"""Relying parties in Node.js (``clients/``): a test opens what they ask for in the browser, and tells them what reached their callback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread, Timer
from typing import Any

from tests.waiting import HANG

CLIENTS = Path(__file__).parent / "clients"
MODULES = Path(__file__).parent / "node_modules"
Visit = Callable[[str], "Arrival"]


@dataclass(frozen=True)
class Arrival:
    """A request of the browser to a client's callback."""

    method: str
    url: str
    body: str = ""


class Callback:
    """The server of a client: it answers every request with a page and keeps those that carry an answer."""

    def __init__(self, server: ThreadingHTTPServer, arrived: Queue[Arrival]) -> None:
        self.origin = f"http://127.0.0.1:{server.server_address[1]}"
        self._arrived = arrived

    def next(self) -> Arrival:
        """The next answer, which the browser brings."""
        return self._arrived.get(timeout=HANG)


@contextmanager
def callback_server() -> Iterator[Callback]:
    arrived: Queue[Arrival] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._arrive("GET", "")

        def do_POST(self) -> None:
            self._arrive("POST", self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _arrive(self, method: str, body: str) -> None:
            if "?" in self.path or body:  # the browser also asks for an icon
                arrived.put(Arrival(method, f"http://{self.headers['Host']}{self.path}", body))
            page = b"<!doctype html><title>App</title><p id=arrived>arrived</p>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Callback(server, arrived)
        server.shutdown()


def converse(script: str, asked: Mapping[str, Any], visit: Visit, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run ``clients/{script}`` and return its last line: ``done`` with what it found, or ``error``.

    ``visit`` opens an address in the browser, does what the person does, and returns what then arrived at the client.
    """
    assert (MODULES / "openid-client").is_dir(), "Client libraries are missing: run `npm ci` in tests/browser (make test does)."
    command = ["node", str(CLIENTS / script)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin and client.stdout
        hang = Timer(HANG, client.kill)
        hang.start()
        try:
            said = asked
            while True:
                client.stdin.write(json.dumps(said) + "\n")
                client.stdin.flush()
                line = client.stdout.readline()
                assert line, f"{script} ended without an answer."
                heard: dict[str, Any] = json.loads(line)
                if "open" not in heard:
                    return heard
                said = vars(visit(heard["open"]))
        finally:
            hang.cancel()
            client.kill()
