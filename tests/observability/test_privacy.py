"""Logs, metrics and traces of a session hold no value of the demo records, whatever callers send and whatever fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import propagate
from opentelemetry.sdk.trace import ReadableSpan

from fhir_server.app import application
from fhir_server.observability import middleware, traces
from fhir_server.observability.logs import configure_logs
from fhir_server.settings import Settings
from fhir_server.store.sqlite.reader import SqliteSnapshot
from tests.observability.spans import collect_spans, text_of
from tests.seeded import seeded
from tests.served import KEY, NOON, ROOT

TOKEN = "a token for the metrics"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A store with the demo records, a backend's token and a parent's token."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'fhir.sqlite'}"
    served = seeded(url)
    tokens = served.token(), served.app_token("parent-a", "teen")
    served.close()
    return url, *tokens


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def resources() -> Iterator[dict[str, Any]]:
    for path in sorted((ROOT / "seed_bundles").glob("*.json")):
        yield from (entry["resource"] for entry in json.loads(path.read_bytes())["entry"] if "resource" in entry)


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for member in value.values():
            yield from leaves(member)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, str):
        yield value


def demo_values() -> set[str]:
    """Every text of the demo records that says something: ids, names, codes, dates, displays, references."""
    words = {text for resource in resources() for text in leaves(resource)}
    return {text for text in words if len(text) > 4 and not (text.isdecimal() and len(text) < 6)}  # those are line numbers, too


def requests(tokens: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What callers ask and send: every id, names in searches, in bodies that are refused, in headers, forms and paths that do not exist."""
    for token in tokens:
        headers = {"Authorization": f"Bearer {token}", "X-Request-Id": "Patient-teen", "traceparent": PARENT}
        headers |= {"tracestate": "vendor=Patient/teen", "baggage": "patient=Patient/teen"}
        for resource in resources():
            yield "GET", f"/fhir/{resource['resourceType']}/{resource['id']}", {"headers": headers}
        for resource in resources():
            if resource["resourceType"] == "Patient":
                name = resource["name"][0]["family"]
                yield "GET", f"/fhir/Patient?family={name}&birthdate={resource['birthDate']}&_id={resource['id']}", {"headers": headers}
                yield "GET", f"/fhir/Observation?subject=Patient/{resource['id']}&nothing={name}", {"headers": headers}
                yield "POST", "/fhir/Patient/_search", {"headers": headers, "data": {"family": name}}
                yield "POST", "/fhir/Patient", {"headers": headers, "content": json.dumps({**resource, "gender": name})}
                yield "PUT", f"/fhir/{name}/{resource['id']}/x/y", {"headers": headers, "content": json.dumps(resource)[:-9]}
                yield "GET", f"/{name}/{resource['id']}", {"headers": {"X-Request-Id": name}}
                yield "POST", "/sign-in", {"data": {"username": resource["id"], "password": name}}
                yield "POST", "/oauth/token", {"data": {"grant_type": name, "code": resource["id"]}}
        yield "POST", "/fhir", {"headers": headers, "content": (ROOT / "seed_bundles/30-teen.json").read_bytes()}


async def session(url: str, tokens: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], str]:
    """Serve all of this behind a trusted proxy, and then some requests that fail inside.  Returns the statuses and the metrics."""
    settings = Settings(store=url, mode="test", secret_key=KEY, clock=NOON, metrics_token=TOKEN)
    app = application(settings)
    statuses = []
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 0))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        for method, path, more in requests(tokens):
            statuses.append((await http.request(method, path, **more)).status_code)
        with monkeypatch.context() as patch:
            patch.setattr(SqliteSnapshot, "read", failing)
            for resource in list(resources())[:20]:
                name = f"/fhir/{resource['resourceType']}/{resource['id']}"
                statuses.append((await http.get(name, headers={"Authorization": f"Bearer {tokens[0]}"})).status_code)
        metrics = await http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert metrics.status_code == 200
    return statuses, metrics.text


async def failing(self: Any, type: str, id: str, visibility: Any) -> Any:
    """Fails with stored values in the message, in the cause and in the local variables."""
    try:
        raise KeyError(f"{type}/{id}")
    except KeyError as error:
        raise RuntimeError(f"The row {type}/{id} cannot be read.") from error


def hits(log: Path, metrics: str, spans: str) -> set[str]:
    """Which values of the demo records stand in the log, apart from its times, in the names and labels of metrics, or in spans."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    said = [json.dumps({name: value for name, value in line.items() if name not in ("time", "milliseconds")}) for line in lines]
    text = "\n".join([*said, *(sample.rpartition(" ")[0] for sample in metrics.splitlines()), spans])
    return {value for value in demo_values() if value in text}


def run(log: Path, filled: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], str, tuple[ReadableSpan, ...]]:
    exporter = collect_spans(monkeypatch)
    configure_logs(filled[0], "debug", "json", str(log))
    return *asyncio.run(session(filled[0], filled[1:], monkeypatch)), exporter.get_finished_spans()


# Texts of the demo records that are also words of the program: names of interactions, levels and fields.
WORDS = {"other", "search", "error", "patient", "Patient", "instance"}


def test_session_leaves_no_demo_value_in_log_metrics_or_traces(
    filled: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses, metrics, spans = run(tmp_path / "log", filled, monkeypatch)
    assert len(spans) == len(statuses) and {(span.attributes or {})["http.response.status_code"] for span in spans} == set(statuses)
    assert {200, 400, 404, 500} <= set(statuses)
    assert 'fhir_server_requests_total{interaction="read",method="GET",status="200"}' in metrics
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert log.count('"request"') >= len(statuses) and log.count("RuntimeError") == 20 == log.count("KeyError")
    assert hits(tmp_path / "log", metrics, text_of(spans)) <= WORDS
    assert len(demo_values()) > 1000


@pytest.mark.parametrize("fault", ["path", "request id", "message", "route", "type", "state", "error"])
def test_planted_leak_in_the_log_or_a_span_is_found(
    fault: str, filled: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "path":
        monkeypatch.setattr(middleware, "interaction_name", lambda method, path: path)
    elif fault == "request id":
        monkeypatch.setattr("fhir_server.request_ids._WELL_FORMED", __import__("re").compile(b".*"))
    elif fault == "message":
        monkeypatch.setattr("fhir_server.observability.logs._fixed_message", lambda store, error: str(error))
    elif fault == "route":
        monkeypatch.setattr(traces, "route_of", lambda path: path)
    elif fault == "type":
        monkeypatch.setattr(traces, "type_in", lambda path, types: path.split("/")[-1])
    elif fault == "state":
        monkeypatch.setattr(traces, "_parent", lambda scope: propagate.extract({n.decode(): v.decode() for n, v in scope["headers"]}))
    else:
        right = traces._finish
        monkeypatch.setattr(traces, "_finish", lambda span, *rest: (span.record_exception(KeyError("Patient/teen")), right(span, *rest)))
    _, metrics, spans = run(tmp_path / "log", filled, monkeypatch)
    assert hits(tmp_path / "log", metrics, text_of(spans)) - WORDS
