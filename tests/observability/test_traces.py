"""Traces: what a span holds, whose parent it takes, and that they are off and cost nothing without OpenTelemetry's variables."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fhir_server.app import application
from fhir_server.observability.interactions import route_of, type_in
from fhir_server.observability.logs import configure_logs
from fhir_server.observability.trace_settings import start_traces, wants_traces
from fhir_server.settings import Settings
from tests.observability.spans import ENDPOINT, collect_spans
from tests.served import ROOT

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROXIED, DIRECT = ("192.0.2.7", 0), ("192.0.2.7", 4711)


def asked(app: Any, *paths: str, client: tuple[str, int] = DIRECT, method: str = "GET", **headers: str) -> list[int]:
    """The statuses of requests, with these headers, from this address."""

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app, client=client, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return [(await http.request(method, path, headers=headers)).status_code for path in paths]

    return asyncio.run(run())


def served() -> Any:
    return application(Settings(store="memory:", mode="test"))


def test_span_has_route_interaction_type_status_and_store_time(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = collect_spans(monkeypatch)
    statuses = asked(
        served(), "/fhir/Patient/x?name=y", "/sign-in?username=z", "/nowhere", "/fhir/Nothing/x/y/z/_history", Authorization="Bearer x"
    )
    assert statuses == [401, 200, 404, 404]
    read, page, nowhere, other = exporter.get_finished_spans()
    assert (read.name, page.name, nowhere.name, other.name) == ("GET /fhir/{type}/{id}", "GET /sign-in", "GET", "GET /fhir/{other}")
    attributes = dict(read.attributes or {})
    assert attributes.pop("fhir_server.store.seconds") > 0
    assert attributes.pop("fhir_server.store.calls") > 0
    assert attributes == {
        "http.request.method": "GET", "http.route": "/fhir/{type}/{id}", "http.response.status_code": 401,
        "fhir_server.interaction": "read", "fhir_server.type": "Patient",
    }  # fmt: skip
    assert "http.route" not in (nowhere.attributes or {}) and "fhir_server.type" not in (other.attributes or {})
    assert read.resource.attributes["service.name"] == "fhir-server"
    assert all(span.parent is None and span.status.status_code == StatusCode.UNSET for span in exporter.get_finished_spans())


def test_health_endpoints_have_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = collect_spans(monkeypatch)
    app = served()
    assert asked(app, "/livez", "/readyz", "/fhir/metadata") == [200, 200, 200]
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /fhir/metadata"]


def test_span_of_a_failure_has_the_type_of_the_error_only(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = collect_spans(monkeypatch)

    def fail(*_: Any) -> Any:
        raise LookupError("Patient/teen")

    monkeypatch.setattr("fhir_server.app.RootApp.__call__", fail)
    assert asked(served(), "/fhir/Patient/x") == [500]
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
    assert (span.attributes or {})["error.type"] == "LookupError"


def test_unknown_method_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = collect_spans(monkeypatch)
    asked(served(), "/fhir/Patient/x", method="SMITH")
    assert "SMITH" not in exporter.get_finished_spans()[0].to_json()


@pytest.mark.parametrize("flags", ["00", "01"])
def test_trace_of_a_trusted_proxy_is_continued(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    exporter = collect_spans(monkeypatch)
    asked(served(), "/fhir/metadata", client=PROXIED, traceparent=f"00-{TRACE}-{SPAN}-{flags}", tracestate="a=smith", baggage="b=smith")
    spans = exporter.get_finished_spans()
    assert len(spans) == (1 if flags == "01" else 0)  # the proxy's sampling holds, by OpenTelemetry's default
    for span in spans:
        assert span.parent is not None and span.context is not None
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
        assert len(span.context.trace_state) == 0 and "smith" not in span.to_json()


def test_trace_of_a_direct_caller_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = collect_spans(monkeypatch)
    asked(served(), "/fhir/metadata", traceparent=f"00-{TRACE}-{SPAN}-00")
    (span,) = exporter.get_finished_spans()
    assert span.parent is None and span.context is not None and f"{span.context.trace_id:032x}" != TRACE


@pytest.mark.parametrize(
    "value",
    [
        "", "x", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-x", f"00-{TRACE[:-1]}-{SPAN}-01", "00-" + "x" * 9000, "\u00e9" * 55,
    ],
)  # fmt: skip
def test_malformed_traceparent_is_ignored(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    exporter = collect_spans(monkeypatch)
    scope = {"type": "http", "method": "GET", "path": "/fhir/metadata", "query_string": b"", "client": PROXIED}
    headers = [(b"host", b"127.0.0.1:8000"), (b"traceparent", value.encode("latin-1"))]
    sent: list[Any] = []

    async def run() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await served()(scope | {"headers": headers}, receive, send)

    asyncio.run(run())
    assert sent[0]["status"] == 200
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_two_traceparents_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = collect_spans(monkeypatch)

    async def run() -> None:
        transport = httpx.ASGITransport(served(), client=PROXIED)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            await http.get("/fhir/metadata", headers=[("traceparent", f"00-{TRACE}-{SPAN}-01"), ("traceparent", f"00-{TRACE}-{SPAN}-01")])

    asyncio.run(run())
    assert exporter.get_finished_spans()[0].parent is None


def test_log_lines_have_the_ids_of_the_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exporter = collect_spans(monkeypatch)
    configure_logs("memory:", "info", "json", str(tmp_path / "log"))
    asked(served(), "/fhir/metadata", "/fhir/metadata")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    ids = [(line["trace_id"], line["span_id"]) for line in lines if line["message"] == "request"]
    contexts = [span.context for span in exporter.get_finished_spans()]
    assert ids == [(f"{context.trace_id:032x}", f"{context.span_id:016x}") for context in contexts if context]
    assert len(set(ids)) == 2


def test_without_settings_nothing_of_the_library_is_loaded() -> None:
    code = (
        "import sys\nfrom fhir_server.app import RootApp, application\nfrom fhir_server.settings import Settings\n"
        "served = application(Settings(store='memory:', mode='test'))\n"
        "print(type(served._app) is RootApp, [name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FHIR_SERVER_"))}

    def run(more: dict[str, str]) -> str:
        return subprocess.run([sys.executable, "-c", code], env=outer | more, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert run({}).strip() == "True []"
    assert run({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "true"}).strip() == "True []"
    assert "opentelemetry.sdk.trace" in run({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT})  # the control


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            True,
        ),
    ],
)
def test_traces_are_wanted_by_the_standard_variables(environment: dict[str, str], wanted: bool) -> None:
    assert wants_traces(environment) is wanted


@pytest.mark.parametrize("name", ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_exporter_that_the_server_does_not_have_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        wants_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, name: "jaeger"})


def test_missing_libraries_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fhir_server.observability.traces", None)
    with pytest.raises(ValueError, match="extra opentelemetry"):
        start_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, ())


def test_libraries_write_no_spans_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI's own spans hold paths and queries: they stay off, even with a provider for the whole process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    assert asked(served(), "/sign-in?username=smith", "/fhir/metadata") == [200, 200]
    assert exporter.get_finished_spans() == ()
    other = FastAPI()
    asked(other, "/smith")
    if hasattr(other, "_native_telemetry"):  # the control, for versions of FastAPI that have spans
        assert "smith" in exporter.get_finished_spans()[0].to_json()


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/fhir", "/fhir"), ("/fhir/", "/fhir"), ("/fhir/smith", "/fhir/{type}"), ("/fhir/Patient/smith", "/fhir/{type}/{id}"),
        ("/fhir/openapi.json", "/fhir/openapi.json"), ("/fhir/metadata", "/fhir/metadata"),
        ("/fhir/Patient/_search", "/fhir/{type}/_search"),
        ("/fhir/Patient/smith/_history/2", "/fhir/{type}/{id}/_history/{version}"), ("/fhir/_history", "/fhir/_history"),
        ("/fhir/$smith", "/fhir/{operation}"), ("/fhir/Patient/smith/$smith", "/fhir/{type}/{id}/{operation}"),
        ("/fhir/a/b/c/d/e", "/fhir/{other}"), ("/fhirsmith", ""), ("/smith", ""),
    ],
)  # fmt: skip
def test_route_has_placeholders_for_what_callers_choose(path: str, route: str) -> None:
    assert route_of(path) == route
    assert type_in(path, {"Patient"}) == ("Patient" if path.startswith("/fhir/Patient") else "")
