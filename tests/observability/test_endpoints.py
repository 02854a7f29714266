"""``/livez``, ``/readyz``, ``/metrics`` and ``X-Request-Id``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import application
from fhir_server.cli.serve import metrics_folder
from fhir_server.observability import health
from fhir_server.observability.health import Health
from fhir_server.observability.interactions import interaction_name
from fhir_server.observability.logs import configure_logs
from fhir_server.observability.metrics import FOLDER, Metrics
from fhir_server.observability.middleware import Observed
from fhir_server.request_ids import request_id, take_id
from fhir_server.root_app import RootApp
from fhir_server.settings import Settings
from fhir_server.store import open_store
from tests.waiting import HANG

TOKEN = "a token for the metrics"
UUID = "0F8FAD5B-D9CB-469F-A165-70867728950E"
Ask = Callable[..., Awaitable[httpx.Response]]


def asked(job: Callable[[Ask], Awaitable[None]], app: Any = None, **settings: Any) -> None:
    """Run ``job`` with a function that sends requests to the application."""

    async def run() -> None:
        served = app or application(Settings(store="memory:", mode="test", **settings))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://127.0.0.1:8000") as http:
            await job(http.request)

    asyncio.run(run())


class Silent:
    """A store that does not answer, or that fails."""

    def __init__(self, error: Exception | None) -> None:
        self.key_values = self
        self._error = error

    async def get(self, *_: Any) -> None:
        if self._error:
            raise self._error
        await asyncio.sleep(HANG)


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["path"])


def test_live_and_ready_answer_without_a_token() -> None:
    async def job(ask: Ask) -> None:
        for path, text in (("/livez", "ok"), ("/readyz", "ready")):
            answer = await ask("GET", path)
            assert (answer.status_code, answer.text, answer.headers["cache-control"]) == (200, text, "no-store")
            assert (await ask("HEAD", path)).content == b"" and (await ask("POST", path)).status_code == 405

    asked(job)


@pytest.mark.parametrize("error", [None, OSError("the disk"), RuntimeError("Patient/x")], ids=["hangs", "disk", "other"])
def test_not_ready_without_the_store_but_alive(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_SECONDS", 0.01)

    async def job(ask: Ask) -> None:
        answer = await ask("GET", "/readyz")
        assert answer.status_code == 503 and answer.text.startswith("the store does not answer")
        assert (await ask("GET", "/livez")).status_code == 200

    asked(job, Observed(_no_app, Health(Silent(error))))  # type: ignore[arg-type]


def test_sigterm_drains_before_the_web_server_stops() -> None:
    stopped: list[int] = []

    async def run() -> None:
        state = Health(open_store("memory:"))
        before = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
        try:
            with state.drain_on_sigterm(3600):
                assert await state.reason() == ""
                signal.raise_signal(signal.SIGTERM)
                assert await state.reason() == "draining" and not stopped
                signal.raise_signal(signal.SIGTERM)  # a second one does not wait
                assert stopped == [signal.SIGTERM]
            state.is_draining = False
            with state.drain_on_sigterm(0):
                signal.raise_signal(signal.SIGTERM)
                assert stopped == [signal.SIGTERM] * 2 and state.is_draining
        finally:
            signal.signal(signal.SIGTERM, before)

    asyncio.run(run())


def test_metrics_need_the_token_and_exist_only_with_one() -> None:
    async def guarded(ask: Ask) -> None:
        for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            answer = await ask("GET", "/metrics", headers=shown)
            assert answer.status_code == 401 and "fhir_server" not in answer.text
        assert (await ask("GET", "/fhir/metadata")).status_code == 200
        answer = await ask("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
        assert 'fhir_server_requests_total{interaction="capabilities",method="GET",status="200"} 1.0' in answer.text
        assert "fhir_server_request_seconds_bucket" in answer.text and "process_resident_memory_bytes" in answer.text

    async def absent(ask: Ask) -> None:
        assert (await ask("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 404

    asked(guarded, metrics_token=TOKEN)
    asked(absent)


def test_several_processes_have_a_folder_for_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with metrics_folder(Settings(mode="test", metrics_token=TOKEN), 1):
        assert FOLDER not in os.environ
    with metrics_folder(Settings(mode="test", metrics_token=TOKEN), 2):
        folder = Path(os.environ[FOLDER])
        assert folder.is_dir()
    assert not folder.exists() and FOLDER not in os.environ


def test_request_id_is_kept_if_well_formed_and_replaced_otherwise() -> None:
    async def job(ask: Ask) -> None:
        for sent in (UUID, "0123456789abcdef", "a" * 64):
            assert (await ask("GET", "/livez", headers={"X-Request-Id": sent})).headers["x-request-id"] == sent
        for sent in ("adult", "Patient/adult", "", "a" * 65, "0123456789abcde", "g" * 20, UUID + "x"):
            given = (await ask("GET", "/fhir/metadata", headers={"X-Request-Id": sent})).headers["x-request-id"]
            assert re.fullmatch("[0-9a-f]{32}", given) and given != sent
        ids = {(await ask("GET", "/nowhere")).headers["x-request-id"] for _ in range(20)}
        assert len(ids) == 20

    asked(job)


def test_new_request_ids_never_repeat() -> None:
    ids = [take_id(()) for _ in range(2000)]
    assert len(set(ids)) == 2000 and request_id.get().encode() == ids[-1]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield tmp_path / "log"
    root.handlers[:] = before
    root.setLevel(level)


async def _failing(scope: Any, receive: Any, send: Any) -> None:
    logging.getLogger("fhir_server").warning("Something.")
    raise RuntimeError("Patient/x")


def test_json_lines_have_level_time_and_the_id_of_the_request(log: Path) -> None:
    configure_logs("memory:", "info", "json", str(log))

    async def job(ask: Ask) -> None:
        with pytest.raises(RuntimeError):
            await ask("GET", "/fhir/Patient/x", headers={"X-Request-Id": UUID})
        logging.getLogger("fhir_server").error("Elsewhere.", exc_info=OSError(28, "No space left on device"))

    asked(job, Observed(RootApp(_failing, _failing), Health(open_store("memory:"))))  # type: ignore[arg-type]
    first, request, last = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert (first["level"], first["message"], first["request_id"]) == ("warning", "Something.", UUID)
    assert (request["logger"], request["interaction"], request["method"], request["status"]) == ("fhir_server.access", "read", "GET", 500)
    assert request["request_id"] == UUID and request["milliseconds"] >= 0
    assert last["exception"]["message"] == "No space left on device" and last["time"].endswith("+00:00")


def test_levels_and_text_form_follow_the_settings(log: Path) -> None:
    configure_logs("memory:", "warning", "text", str(log))

    async def job(ask: Ask) -> None:
        with pytest.raises(RuntimeError):
            await ask("GET", "/fhir/Patient/x", headers={"X-Request-Id": UUID})

    asked(job, Observed(RootApp(_failing, _failing), Health(open_store("memory:"))))
    (line,) = log.read_text(encoding="utf-8").splitlines()
    assert line.endswith(f"WARNING fhir_server: Something. [request_id={UUID}]")
    for wrong in ({"FHIR_SERVER_LOG_LEVEL": "loud"}, {"FHIR_SERVER_LOG_FORMAT": "xml"}, {"FHIR_SERVER_METRICS_TOKEN": "short"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings.from_environment({"FHIR_SERVER_MODE": "test", **wrong})


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/fhir/Patient/x", "read"), ("HEAD", "/fhir/Patient/x", "read"), ("GET", "/fhir/Patient", "search-type"),
        ("POST", "/fhir/Patient/_search", "search-type"), ("POST", "/fhir", "bundle"), ("POST", "/fhir/", "bundle"),
        ("GET", "/fhir/Patient/x/_history", "history"), ("GET", "/fhir/Patient/x/_history/2", "vread"),
        ("GET", "/fhir/Patient/x/$everything", "operation"), ("POST", "/fhir/Patient", "create"), ("PUT", "/fhir/Patient/x", "update"),
        ("DELETE", "/fhir/Patient/x", "delete"), ("GET", "/fhir/metadata", "capabilities"), ("BREW", "/fhir/Patient/x", "other"),
        ("GET", "/fhir/a/b/c/d", "other"), ("POST", "/oauth/token", "oauth"), ("GET", "/someone", "page"), ("GET", "/", "page"),
    ],
)  # fmt: skip
def test_interaction_is_named_by_method_and_shape(method: str, path: str, name: str) -> None:
    assert interaction_name(method, path) == name


def test_unknown_methods_share_one_label() -> None:
    metrics = Metrics()
    for method in ("BREW", "WHEN"):
        metrics.begin()
        metrics.finish("other", method, 405, 0.1)
    assert b'fhir_server_requests_total{interaction="other",method="other",status="405"} 2.0' in metrics.text()
