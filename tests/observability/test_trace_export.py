"""A server sends its spans to a collector by OTLP, and needs none to serve and to stop."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.observability.serving import answers, serving
from tests.ports import reserved_port
from tests.waiting import HANG, wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@contextmanager
def collector(released: Event) -> Iterator[tuple[str, list[Any]]]:
    """A collector, which answers once it is released: its URL, and the spans that it has received."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
                spans.extend((names["service.name"], span) for scope in resource.scope_spans for span in scope.spans)
            released.wait(HANG)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        released.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_spans_reach_the_collector_and_log_lines_name_them(tmp_path: Path, workers: str) -> None:
    released, log = Event(), tmp_path / "log"
    released.set()
    said = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=smith"}
    with collector(released) as (url, spans):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "hospital"}
        settings = {"LOG_LEVEL": "info", "LOG_FORMAT": "json", "LOG_FILE": str(log), "WORKERS": workers}
        with serving(tmp_path, environment, **settings) as (process, address):
            wait_until(lambda: answers(process, f"{address}/readyz"), "the server answers", every=0.05)
            httpx.get(f"{address}/fhir/Patient/smith?name=smith", headers=said | {"X-Forwarded-For": "192.0.2.7"})
            httpx.get(f"{address}/fhir/metadata", headers=said)
            process.send_signal(signal.SIGTERM)
            process.wait(HANG)
    found = {span.name: (service, span) for service, span in spans}
    assert set(found) == {"GET /fhir/{type}/{id}", "GET /fhir/metadata"}
    service, proxied = found["GET /fhir/{type}/{id}"]
    assert service == "hospital"
    assert (proxied.trace_id.hex(), proxied.parent_span_id.hex(), proxied.trace_state) == (TRACE, SPAN, "")
    direct = found["GET /fhir/metadata"][1]
    assert direct.trace_id.hex() != TRACE and not direct.parent_span_id  # nobody but the proxy chooses a trace
    assert b"smith" not in b"".join(span.SerializeToString() for _, span in spans)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ids = {(line["trace_id"], line["span_id"]) for line in lines if line["message"] == "request" and "trace_id" in line}
    assert ids == {(span.trace_id.hex(), span.span_id.hex()) for _, span in spans}


@pytest.mark.parametrize("kind", ["away", "silent"])
def test_server_serves_and_stops_without_a_working_collector(tmp_path: Path, kind: str) -> None:
    with collector(Event()) as (url, _):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url if kind == "silent" else f"http://127.0.0.1:{reserved_port()}"}
        with serving(tmp_path, environment, WORKERS="1") as (process, address):
            wait_until(lambda: answers(process, f"{address}/readyz"), "the server answers", every=0.05)
            assert [httpx.get(f"{address}/fhir/metadata", timeout=HANG).status_code for _ in range(5)] == [200] * 5
            process.send_signal(signal.SIGTERM)
            process.wait(HANG)
        assert process.returncode == -signal.SIGTERM  # an orderly stop: uvicorn ends with the signal that stopped it


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server_does_not_start_with_an_exporter_that_it_does_not_have(tmp_path: Path, workers: str) -> None:
    with serving(tmp_path, {"OTEL_TRACES_EXPORTER": "zipkin"}, WORKERS=workers) as (process, _):
        _, said = process.communicate(timeout=HANG)
    assert process.returncode == 1
    assert "OTEL_TRACES_EXPORTER must be otlp or none" in said and "Traceback" not in said
