"""The proxy configurations of ``deploy/``, run: what reaches the server, what does not, and what their logs hold."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import httpx
import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.settings import Settings
from fhir_server.store import open_store
from fhir_server.web.websockets import POLICY
from tests.deployment.proxies import CADDY, NGINX, Proxy, changed, running
from tests.mongo.server_processes import ORIGIN, Process
from tests.ports import reserved_port
from tests.served import Served
from tests.subscriptions.raw_websocket import RawClient
from tests.waiting import wait_until

METRICS_TOKEN = "a token for the metrics"
OWN_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
QUIET = b"POST /fhir HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/fhir+json\r\nContent-Length: 100\r\n\r\n"  # and no body
ASKER = "127.0.0.9"
both = pytest.mark.parametrize("name", ["nginx", "caddy"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


class Site(NamedTuple):
    """A server and both proxies in front of it."""

    server: Process
    token: str
    proxies: dict[str, Proxy]

    def addresses(self) -> list[str]:
        """The network addresses in the audit log, in order, but for the one that asks the server to store its lines."""
        with httpx.Client(transport=httpx.HTTPTransport(local_address=ASKER)) as client:
            asked = client.get(f"http://127.0.0.1:{self.server.port}/fhir/AuditEvent?_summary=count", headers=bearer(self.token))
        assert asked.status_code == 200, asked.text

        async def read() -> list[str]:
            store = open_store(self.server.url)
            lines = await store.read_log(LOG_NAME, 0)
            await store.close()
            agents = [agent for _, line in lines for agent in json.loads(line)["event"]["agent"]]
            found = [agent["network"]["address"] for agent in agents if "network" in agent]
            return [address for address in found if address != ASKER]

        return asyncio.run(read())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    url = f"sqlite:///{folder / 'fhir.sqlite'}"
    served = Served(url, seeds=False, origin=ORIGIN)
    token = served.token()
    served.request(token, "PUT", "Patient/p", body={"resourceType": "Patient", "id": "p"})
    served.close()
    server = Process(url, METRICS_TOKEN=METRICS_TOKEN)
    try:
        server.await_answer()
        with running("nginx", folder / "nginx", server.port) as nginx, running("caddy", folder / "caddy", server.port) as caddy:
            yield Site(server, token, {"nginx": nginx, "caddy": caddy})
    finally:
        server.kill()


@both
def test_requests_reach_the_server_with_the_callers_address(site: Site, name: str) -> None:
    source = {"nginx": "127.0.0.2", "caddy": "127.0.0.3"}[name]
    headers = {"authorization": f"Bearer {site.token}", "x-forwarded-for": "6.6.6.6", "x-real-ip": "6.6.6.6", "forwarded": "for=6.6.6.6"}
    with site.proxies[name].client(source) as client:
        assert client.get("/fhir/Patient/p", headers=headers).json()["id"] == "p"
        assert client.get("/fhir/Patient/p").status_code == 401
    addresses = site.addresses()
    assert source in addresses and "6.6.6.6" not in addresses


@both
def test_request_id_is_the_callers_or_a_new_one(site: Site, name: str) -> None:
    with site.proxies[name].client() as client:
        assert client.get("/livez", headers={"x-request-id": OWN_ID}).headers["x-request-id"] == OWN_ID
        made = [client.get("/livez").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1] and all(re.fullmatch(r"[0-9a-f-]{32,36}", one) for one in made)
    if name == "nginx":
        for one in (OWN_ID, *made):
            wait_until(lambda one=one: f'"request_id":"{one}"' in site.proxies[name].logs(), "nginx logs the request")  # type: ignore[misc]


@both
def test_traceparent_of_a_client_does_not_reach_the_server(name: str, tmp_path: Path) -> None:
    came: list[Mapping[str, str]] = []

    class Upstream(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        Thread(target=upstream.serve_forever, daemon=True).start()
        with running(name, tmp_path / "proxy", upstream.server_port) as proxy, proxy.client() as client:
            sent = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x-request-id": OWN_ID}
            assert client.get("/livez", headers=sent).status_code == 204
        upstream.shutdown()
    assert [one["x-request-id"] for one in came] == [OWN_ID] and "traceparent" not in came[0]


@both
def test_a_websocket_reaches_the_server(site: Site, name: str) -> None:
    async def job() -> int:
        tls = ssl.create_default_context(cafile=site.proxies[name].certificate)
        one = await RawClient.open(site.proxies[name].port, tls=tls)
        assert one.status == 101
        one.say("neither bind nor bind-with-token")
        return await one.end()

    assert asyncio.run(job()) == POLICY


@both
def test_metrics_are_not_passed_on(site: Site, name: str) -> None:
    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
    assert httpx.get(f"{site.server.address}/metrics", headers=headers).status_code == 200
    with site.proxies[name].client() as client:
        assert client.get("/metrics", headers=headers).status_code == 404


@both
def test_body_over_the_limit_of_a_bundle_is_refused(site: Site, name: str) -> None:
    limit = Settings().max_body_bytes
    headers = {"content-type": "application/fhir+json", "authorization": f"Bearer {site.token}"}
    with site.proxies[name].client() as client:
        assert client.post("/fhir", content=b" " * (limit + 1), headers=headers).status_code == 413
        at_limit = client.post("/fhir", content=b" " * limit, headers=headers)
    assert at_limit.status_code == 400 and at_limit.json()["resourceType"] == "OperationOutcome"


@both
def test_large_head_is_refused(site: Site, name: str) -> None:
    limit = Settings().max_head_bytes
    with site.proxies[name].client() as client:
        refused = client.get("/livez", headers={f"x-{number}": "a" * 8000 for number in range(limit // 8000 + 2)})
        assert refused.status_code in (400, 431) and "x-request-id" not in refused.headers
        assert client.get("/livez", headers={"x-1": "a" * 8000}).status_code == 200


@both
def test_slow_head_and_slow_body_are_ended_by_the_clock(site: Site, name: str, tmp_path: Path) -> None:
    before = len(site.addresses())
    with running(name, tmp_path / name, site.server.port, quick=True) as proxy:
        for part in (b"GET /livez HTTP/1.1\r\nHost: loc", QUIET + b"{"):
            with proxy.connect() as slow:
                slow.sendall(part)
                answer = b""
                while received := slow.recv(4096):  # until the proxy closes the connection
                    answer += received
            assert b" 200 " not in answer
        with proxy.client() as client:
            assert client.get("/livez").status_code == 200
    if name == "nginx":
        assert len(site.addresses()) == before  # it waited for the body before it asked the server


def test_one_address_has_a_limit_of_connections(site: Site) -> None:
    proxy = site.proxies["nginx"]
    limit = int(re.search(r"limit_conn +\w+ (\d+);", NGINX.read_text(encoding="utf-8"))[1])  # type: ignore[index]
    quiet = [proxy.connect() for _ in range(limit)]
    for one in quiet:
        one.sendall(QUIET)
    with proxy.client() as client, proxy.client("127.0.0.9") as other:
        wait_until(lambda: client.get("/livez").status_code == 429, "nginx refuses a further request")
        assert other.get("/livez").status_code == 200
        for one in quiet:
            one.close()
        wait_until(lambda: client.get("/livez").status_code == 200, "nginx sees that the connections are closed")


@both
def test_logs_of_a_proxy_hold_nothing_of_requests(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path / name, reserved_port()) as proxy:
        with proxy.client() as client:
            headers = {"authorization": "Bearer a-secret", "x-own": "Featherstone"}
            answer = client.get("/fhir/Patient/featherstone?name=Featherstone", headers=headers)
        assert answer.status_code in (502, 503, 504)
    logs = proxy.logs()  # whole, because the proxy has ended
    assert logs and not re.search("featherstone|a-secret|/fhir/", logs, re.IGNORECASE)


@pytest.mark.parametrize(
    ("name", "file", "line", "planted"),
    [("nginx", NGINX, " crit;", " error;"), ("caddy", CADDY, "exclude", "include")],
)
def test_log_check_finds_a_log_with_requests(
    name: str, file: Path, line: str, planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talkative = tmp_path / "talkative"
    talkative.write_text(changed(file.read_text(encoding="utf-8"), [(line, planted)]), encoding="utf-8")
    monkeypatch.setattr(f"tests.deployment.proxies.{name.upper()}", talkative)
    with pytest.raises(AssertionError, match="/fhir/"):
        test_logs_of_a_proxy_hold_nothing_of_requests(name, tmp_path)


def test_limits_of_proxies_are_the_servers() -> None:
    settings = Settings()
    body, head = settings.max_body_bytes // 2**20, settings.max_head_bytes // 2**10
    nginx, caddy = NGINX.read_text(encoding="utf-8"), CADDY.read_text(encoding="utf-8")
    for line in (
        f"client_max_body_size +{body}m;",
        f"large_client_header_buffers +4 {head // 4}k;",
        f"client_header_timeout +{settings.max_head_seconds}s;",
        f"client_body_timeout +{settings.max_quiet_seconds}s;",
        f"send_timeout +{settings.max_quiet_seconds}s;",
    ):
        assert re.search(line, nginx), line
    for line in (
        f"max_size {body}MiB",
        f"max_header_size {head}KiB",
        f"read_header {settings.max_head_seconds}s",
        f"read_body {settings.max_body_seconds}s",
    ):
        assert re.search(line, caddy), line
