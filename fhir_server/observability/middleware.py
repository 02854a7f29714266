"""The ASGI application around all others: the endpoints of the operator, metrics, and one log line for each request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final

from fhir_server.observability.health import Health
from fhir_server.observability.interactions import METHODS, interaction_name
from fhir_server.observability.logs import ACCESS
from fhir_server.observability.metrics import CONTENT_TYPE, Metrics, is_bearer
from fhir_server.request_ids import HEADER, take_id
from fhir_server.web.security_headers import Headers, with_security_headers

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]
_log: Final = logging.getLogger(ACCESS)
_TEXT: Final = b"text/plain; charset=utf-8"


class Observed:
    """The application ``app`` as an operator can watch it.

    ``metrics`` are counted if given; without a ``metrics_token`` there is no ``/metrics`` here.

    ``headers`` are those that each of its own answers has.  The log must be configured before: a request has a line if the level is
    ``info`` now.
    """

    def __init__(self, app: App, health: Health, metrics: Metrics | None = None, metrics_token: str = "", *, headers: Headers = ()) -> None:
        self._headers = headers
        self._app = app
        self._health = health
        self.metrics = metrics
        self._metrics_token = metrics_token
        self._own_paths = frozenset(("/livez", "/readyz", *(("/metrics",) if metrics is not None and metrics_token else ())))
        self._watches = metrics is not None or _log.isEnabledFor(logging.INFO)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope.get("path") in self._own_paths and scope["type"] == "http":
            await self._answer(scope, with_security_headers(send, self._headers))
        elif self._watches and scope["type"] == "http":
            await self._watch(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _watch(self, scope: Scope, receive: Any, send: Send) -> None:
        """Let the application answer, then count the request and write its line."""
        status = 500

        async def noting_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = perf_counter()
        if self.metrics is not None:
            self.metrics.begin()
        try:
            await self._app(scope, receive, noting_send)
        finally:
            self._note(interaction_name(scope["method"], scope["path"]), scope["method"], status, perf_counter() - began)

    def _note(self, name: str, method: str, status: int, seconds: float) -> None:
        if self.metrics is not None:
            self.metrics.finish(name, method, status, seconds)
        if _log.isEnabledFor(logging.INFO):
            method = method if method in METHODS else "other"
            facts = {"interaction": name, "method": method, "status": status, "milliseconds": round(seconds * 1000, 1)}
            _log.info("request", extra={"facts": facts})

    async def _answer(self, scope: Scope, send: Send) -> None:
        status, kind, body = 200, _TEXT, b"ok"
        named = (HEADER, take_id(scope["headers"]))
        if scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b"method not allowed"
        elif scope["path"] == "/readyz":
            reason = await self._health.reason()
            status, body = (503, reason.encode()) if reason else (200, self._health.text.encode())
        elif scope["path"] == "/metrics" and self.metrics is not None:
            shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if is_bearer(shown, self._metrics_token):
                kind, body = CONTENT_TYPE, self.metrics.text()
            else:
                status, body = 401, b"a bearer token is required"
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store"), named]
        if status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="metrics"'))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
