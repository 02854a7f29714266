"""``/metrics`` at an address of its own: not at the server's port, and with the sums of all processes."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import httpx
import pytest

from fhir_server.app import application
from fhir_server.observability.metrics_server import MetricsServer
from fhir_server.settings import Settings
from fhir_server.web.security_headers import security_headers
from tests.observability.serving import answers, serving
from tests.ports import reserved_port
from tests.waiting import HANG, wait_until

TOKEN = "a token for the metrics"


def counted(text: str) -> int:
    found = re.search(r'fhir_server_requests_total\{interaction="capabilities",method="GET",status="200"\} ([0-9.]+)', text)
    return int(float(found[1])) if found else 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_metrics_at_their_own_address_are_404_at_the_servers(workers: str, tmp_path: Path) -> None:
    port = reserved_port()
    with serving(tmp_path, METRICS_ADDRESS=f"127.0.0.1:{port}", WORKERS=workers) as (process, url):
        wait_until(lambda: answers(process, f"{url}/readyz"), "the server answers", every=0.05)
        assert [httpx.get(f"{url}/fhir/metadata").status_code for _ in range(12)] == [200] * 12
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
        assert counted(answer.text) == 12
        assert ("process_resident_memory_bytes" in answer.text) == (workers == "1")
        assert httpx.get(f"{url}/metrics").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/fhir/metadata").status_code == 404


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server_does_not_start_if_its_metrics_address_is_taken(workers: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with serving(tmp_path, METRICS_ADDRESS=address, WORKERS=workers) as (process, _):
            _, said = process.communicate(timeout=HANG)
            assert process.returncode == 1
            assert "FHIR_SERVER_METRICS_ADDRESS: nothing can listen at 127.0.0.1" in said and "Traceback" not in said


def test_token_at_the_servers_port_does_not_open_metrics_that_moved() -> None:
    async def job() -> int:
        served = application(Settings(store="memory:", mode="test", metrics_token=TOKEN, metrics_address="127.0.0.1:9100"))
        transport = httpx.ASGITransport(served)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return (await http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status_code

    assert asyncio.run(job()) == 404


def test_token_guards_metrics_at_their_own_address() -> None:
    port = reserved_port()
    server = MetricsServer(("127.0.0.1", port), lambda: b"numbers", TOKEN)
    url, shown = f"http://127.0.0.1:{port}/metrics", {"Authorization": f"Bearer {TOKEN}"}
    try:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            answer = httpx.get(url, headers=wrong)
            assert (answer.status_code, "numbers" in answer.text) == (401, False)
        assert httpx.get(url, headers=shown).text == "numbers"
        assert (httpx.head(url, headers=shown).status_code, httpx.post(url, headers=shown).status_code) == (200, 405)
        for path in ("/x", "/..", "?x=1#y"):
            assert httpx.get(url + path, headers=shown).status_code == (200 if path[0] == "?" else 404)
        for other in ("/", "/fhir/metadata", "/livez", "/metrics/", "/x/metrics"):
            assert httpx.get(f"http://127.0.0.1:{port}{other}", headers=shown).status_code == 404, other
        for answer in (httpx.get(url, headers=shown), httpx.get(url), httpx.get(url + "/x"), httpx.post(url, headers=shown)):
            for name, value in security_headers(""):
                assert answer.headers[name.decode()] == value.decode(), (answer.status_code, name)
    finally:
        server.close()


@pytest.mark.parametrize("address", ["9100", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:9100", "http://a:1", "a b:1", ":9100"])
def test_malformed_metrics_address_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_METRICS_ADDRESS"):
        Settings.from_environment({"FHIR_SERVER_MODE": "test", "FHIR_SERVER_METRICS_ADDRESS": address})


def test_metrics_address_is_a_host_and_a_port() -> None:
    for text, expected in (("127.0.0.1:9100", ("127.0.0.1", 9100)), ("[::1]:9100", ("::1", 9100)), ("db.local:1", ("db.local", 1))):
        assert Settings.from_environment({"FHIR_SERVER_MODE": "test", "FHIR_SERVER_METRICS_ADDRESS": text}).metrics_endpoint == expected
    assert Settings().metrics_endpoint is None
