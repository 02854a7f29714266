"""Collects the spans of servers in this process, in place of the exporter and of its batches."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fhir_server.resources import catalog

ENDPOINT = "http://127.0.0.1:9"


def collect_spans(patch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Turn traces on for servers that are built from now on.  Returns where their spans arrive when they end."""
    exporter = InMemorySpanExporter()
    patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT)
    patch.setattr("fhir_server.observability.traces.OTLPSpanExporter", lambda: exporter)
    patch.setattr("fhir_server.observability.traces.BatchSpanProcessor", SimpleSpanProcessor)
    return exporter


def text_of(spans: tuple[ReadableSpan, ...]) -> str:
    """All that is exported of these spans, apart from times and the names of R4's types: names, attributes, events, states, resources."""
    said = []
    for span in spans:
        whole = json.loads(span.to_json())
        for name in ("start_time", "end_time"):
            del whole[name]
        del whole["attributes"]["fhir_server.store.seconds"]
        if whole["attributes"].get("fhir_server.type") in catalog():
            del whole["attributes"]["fhir_server.type"]
        said.append(json.dumps(whole))
        assert span.context is not None
        said.append(repr(span.context.trace_state))
    return "\n".join(said)
