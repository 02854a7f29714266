"""The FHIR API as an ASGI application: reads requests, calls the route's handler, records the request in the audit log.

It reads no stored data.  Each error becomes an OperationOutcome.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from fhir_server.audit import AuditLog
from fhir_server.clock import Clock
from fhir_server.errors import Problem
from fhir_server.interactions import batch
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response, header_fields, parse_query, require_acceptable
from fhir_server.interactions.routing import match_route
from fhir_server.interactions.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("fhir_server")
_COMMON: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization, Origin, Accept, Prefer"),
    (b"x-content-type-options", b"nosniff"),
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag, Location, Last-Modified, Content-Location, Expires, Retry-After, X-Progress"),
)
_PREFLIGHT = (
    *_COMMON,
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Accept, Prefer, If-Match, If-None-Match, If-None-Exist, If-Modified-Since, If-Unmodified-Since",
    ),
    (b"access-control-max-age", b"86400"),
)
# additional headers of error responses, by status
_ERROR_HEADERS = {401: ((b"www-authenticate", b'Bearer realm="fhir"'),), 503: ((b"retry-after", b"1"),)}


class FhirApi:
    """ASGI application to mount at the FHIR base.

    ``max_body``   the largest request body, in bytes
    ``documents``  responses that need no access token (metadata, discovery), by path
    """

    def __init__(
        self, service: Service, clock: Clock, audit_log: AuditLog, max_body: int, documents: dict[tuple[str, ...], Callable[[], Response]]
    ) -> None:
        self._service = service
        self._clock = clock
        self._audit_log = audit_log
        self._max_body = max_body
        self._documents = documents

    def prepare(self) -> None:
        """Build the documents, so that the first request for one does not wait."""
        for document in self._documents.values():
            document()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(scope, receive)
        body = b"" if scope["method"] == "HEAD" else response.body
        length = (b"content-length", b"%d" % len(response.body))
        headers = [*response.headers, *(() if response.stream or response.status in (204, 304) else (length,))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.stream and scope["method"] != "HEAD" and not await _send_stream(response.stream, send):
            return
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        """Handle a request and record it.  Errors become OperationOutcomes."""
        if scope["method"] == "OPTIONS":
            return Response(204, headers=_PREFLIGHT)
        request = None
        audit = AuditContext()
        try:
            request = await self._read_request(scope, receive)
            response = await self._handle(request, audit)
            headers = (*response.headers, *_COMMON)
        except Problem as problem:
            response = Response(problem.status, problem.outcome())
            headers = ((b"content-type", JSON), *_COMMON, *_ERROR_HEADERS.get(problem.status, ()))
        except Exception:
            _log.exception("A request failed.")
            response = Response(500, Problem("fault", "The server failed to answer; the failure has been logged.").outcome())
            headers = ((b"content-type", JSON), *_COMMON)
        if request is not None:
            await self._audit_log.record_request(request, audit, response.status)
        return Response(response.status, response.body, headers, response.stream)

    async def _handle(self, request: Request, audit: AuditContext) -> Response:
        document = self._documents.get(request.path)
        if document is not None and request.method in ("GET", "HEAD"):
            return document()
        if not request.path:
            require_acceptable(request)
            if request.method != "POST":
                raise Problem("method", f"This URL does not support {request.method}.")
            return await batch.process_bundle(request, self._service, audit)
        route = match_route(request)
        require_acceptable(request, route.media)
        return await route.handle(request, self._service, audit)

    async def _read_request(self, scope: Scope, receive: Receive) -> Request:
        path = scope["path"][len(scope.get("root_path", "")) :]
        headers = header_fields(scope["headers"])
        declared = headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 15 or int(declared) > self._max_body):
            raise self._too_large()
        body = await self._read_body(receive) if scope["method"] in ("POST", "PUT", "PATCH") else b""
        segments = tuple(segment for segment in path.split("/") if segment)
        return Request(scope["method"], segments, parse_query(scope["query_string"]), headers, body, self._clock())

    async def _read_body(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem("invalid", "The body ended early.")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> Problem:
        return Problem("too_large", f"The body is larger than {self._max_body} bytes, the largest size that this server accepts.")


async def _send_stream(stream: AsyncIterator[bytes], send: Send) -> bool:
    """Send a body in parts.  Returns False after an error: the body then stays unterminated, which the client can detect."""
    try:
        async for part in stream:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except Problem:
        return False
    return True
