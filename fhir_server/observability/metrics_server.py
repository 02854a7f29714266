"""Serves ``/metrics`` at an address of its own, so that the public port has none.

It runs in threads of the process that started the server, not in the event loop: Prometheus gets its numbers while the loop is busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socket import AF_INET6
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from fhir_server.observability.metrics import CONTENT_TYPE, is_bearer
from fhir_server.web.security_headers import security_headers

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_SECONDS: Final = 10  # a connection that says nothing for so long is closed
_PLAIN: Final = "text/plain; charset=utf-8"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Write no line: the log is for requests to the server."""


class MetricsServer:
    """Serves ``text()`` at ``/metrics`` of this host and port, until it is closed.  With a ``token``, callers must show it.

    Raises ValueError, with a message for the operator, if nothing can listen there.
    """

    def __init__(self, endpoint: tuple[str, int], text: Callable[[], bytes], token: str) -> None:
        self._headers = [(name.decode().title(), value.decode()) for name, value in security_headers("")]
        self._text = text
        self._token = token
        host, port = endpoint
        try:
            self._server = make_server(host, port, self._answer, _Server6 if ":" in host else _Server, _Handler)
        except OSError as error:
            raise ValueError(f"FHIR_SERVER_METRICS_ADDRESS: nothing can listen at {host}, port {port} ({error.strerror}).") from None
        Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, kind, body = "200 OK", _PLAIN, b""
        if environ["PATH_INFO"] != "/metrics":
            status, body = "404 Not Found", b"not found"
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"method not allowed"
        elif self._token and not is_bearer(environ.get("HTTP_AUTHORIZATION", "").encode("latin-1"), self._token):
            status, body = "401 Unauthorized", b"a bearer token is required"
        else:
            kind, body = CONTENT_TYPE.decode(), self._text()
        more = [("WWW-Authenticate", 'Bearer realm="metrics"')] if status.startswith("401") else []
        start_response(
            status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), *self._headers, *more]
        )
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
