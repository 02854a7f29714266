"""OpenTelemetry traces: a span for each request, with what it is and how it went, and nothing of what it says.

A span has the route with placeholders, the interaction, the type of resource, the status, and the time of the store.  It has no path,
id, query, header, address, body or message of an exception, so that it holds no data of a patient.  The exporter, the sampler and
the resource follow OpenTelemetry's environment variables.

The caller's span is taken as parent only if a trusted proxy passed it on, and of the header ``traceparent`` alone:
``tracestate`` and ``baggage`` may hold any text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from threading import Thread
from typing import Any, Final

import anyio.to_thread
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fhir_server.observability.interactions import METHODS, interaction_name, route_of, type_in
from fhir_server.observability.store_time import StoreTime, store_time
from fhir_server.request_ids import trace_ids

_STOP_SECONDS: Final = 3.0  # for the last spans, when the server stops; a collector that is away must not hold it up
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Traces:
    """The spans of one server process, and their exporter.  ``types``: the names of R4's resource types."""

    def __init__(self, types: Iterable[str]) -> None:
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "fhir-server"}
        # Not the global provider: no library writes spans of its own, which would hold paths and queries.
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("fhir_server")
        self._types = frozenset(types)

    def watched(self, app: Any) -> Any:
        """The same ASGI application, with a span for each HTTP request."""

        async def call(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
            else:
                await self._call(app, scope, receive, send)

        return call

    async def close(self) -> None:
        """Send the spans that wait, for some seconds at most."""
        sending = Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        await anyio.to_thread.run_sync(sending.join, _STOP_SECONDS)

    async def _call(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        span, spent, status = self._start(scope), StoreTime(), 500
        ids = span.get_span_context()
        trace_ids.set((format_trace_id(ids.trace_id), format_span_id(ids.span_id)))
        store_time.set(spent)

        async def noting_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, noting_send)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)  # never the message
            raise
        finally:
            _finish(span, scope, status, spent)

    def _start(self, scope: Any) -> Span:
        method, path = scope["method"], scope["path"]
        attributes = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "fhir_server.interaction": interaction_name(method, path),
        }
        if type := type_in(path, self._types):
            attributes["fhir_server.type"] = type
        return self._tracer.start_span("request", _parent(scope), SpanKind.SERVER, attributes, record_exception=False)


def _finish(span: Span, scope: Any, status: int, spent: StoreTime) -> None:
    # Pages and OAuth have routes with placeholders; where none was found, the path is the caller's and stays out.
    route = route_of(scope["path"]) or getattr(scope.get("route"), "path", "")
    method = scope["method"] if scope["method"] in METHODS else "HTTP"
    span.update_name(f"{method} {route}" if route else method)
    if route:
        span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("fhir_server.store.calls", spent.calls)
    span.set_attribute("fhir_server.store.seconds", round(spent.seconds, 6))
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _parent(scope: Any) -> Context:
    """The span of the proxy, if a trusted one passed the request on; otherwise none.

    uvicorn puts the address that a trusted proxy forwards into the scope with port 0.  No connection has that port.
    """
    client = scope.get("client")
    sent = [value for name, value in scope["headers"] if name == b"traceparent"]
    if client is None or client[1] != 0 or len(sent) != 1:
        return Context()
    return _PROPAGATOR.extract({"traceparent": sent[0].decode("latin-1")}, Context())
