"""The ASGI application around all others: request ids, the endpoints of the operator, metrics and one log line for each request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final

from fhir_server.observability.health import Health
from fhir_server.observability.interactions import METHODS, interaction_name
from fhir_server.observability.logs import ACCESS
from fhir_server.observability.metrics import CONTENT_TYPE, Metrics
from fhir_server.observability.request_ids import HEADER, take_id

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]
_log: Final = logging.getLogger(ACCESS)
_TEXT: Final = b"text/plain; charset=utf-8"


class Observed:
    """The application ``app`` as an operator can watch it.  Without ``metrics`` there is no ``/metrics``."""

    def __init__(self, app: App, health: Health, metrics: Metrics | None = None) -> None:
        self._app = app
        self._health = health
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id = take_id(scope["headers"])
        named = (HEADER, id.encode())
        answered = 0

        async def send_named(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
                message["headers"] = [*message.get("headers", ()), named]
            await send(message)

        path = scope["path"]
        if path in ("/livez", "/readyz") or (path == "/metrics" and self._metrics is not None):
            await self._answer(scope, send_named)
            return
        if self._metrics is None and not _log.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send_named)
            return
        began, name = perf_counter(), interaction_name(scope["method"], path)
        if self._metrics is not None:
            self._metrics.begin()
        try:
            await self._app(scope, receive, send_named)
        finally:
            self._note(name, scope["method"], answered or 500, perf_counter() - began)

    def _note(self, name: str, method: str, status: int, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.finish(name, method, status, seconds)
        if _log.isEnabledFor(logging.INFO):
            method = method if method in METHODS else "other"
            facts = {"interaction": name, "method": method, "status": status, "milliseconds": round(seconds * 1000, 1)}
            _log.info("request", extra={"facts": facts})

    async def _answer(self, scope: Scope, send: Send) -> None:
        status, kind, body = 200, _TEXT, b"ok"
        if scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b"method not allowed"
        elif scope["path"] == "/readyz":
            reason = await self._health.reason()
            status, body = (503, reason.encode()) if reason else (200, b"ready")
        elif scope["path"] == "/metrics" and self._metrics is not None:
            shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if self._metrics.admits(shown):
                kind, body = CONTENT_TYPE, self._metrics.text()
            else:
                status, body = 401, b"a bearer token is required"
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        if status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="metrics"'))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
