"""An app whose callback and launch URI redirect to another origin, as those of brokers and of apps with several hosts do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.browser.conftest import Command


class _Hop(BaseHTTPRequestHandler):
    """``/hop`` redirects to another origin of the same server; ``/end`` answers with a page."""

    def do_GET(self) -> None:
        if self.path.startswith("/hop"):
            self.send_response(302)
            other = f"http://localhost:{self.server.server_address[1]}"
            self.send_header("Location", f"{other}/end{self.path.removeprefix('/hop')}")
            self.end_headers()
            return
        body = b"<!doctype html><title>App</title><p id=arrived>arrived</p>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def redirecting_app(command: Command, client_id: str) -> Iterator[str]:
    """The origin of the app's ``/hop``, its callback and launch URI.  It is registered, and approved for staff."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hop) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_address[1]}"
        command(
            *("client", "add", client_id, "--name", "Hopping app", "--redirect-uri", f"{origin}/hop", "--launch-uri", f"{origin}/hop"),
            *("--scope", "openid fhirUser launch launch/patient patient/*.rs user/*.rs"),
        )
        command("client", "approve-for-staff", client_id)
        yield origin
        server.shutdown()


def other_origin(origin: str) -> str:
    """Where the app's redirects end."""
    return origin.replace("127.0.0.1", "localhost")
