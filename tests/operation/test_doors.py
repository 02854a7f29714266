"""Read-only and maintenance operation at every door of a running server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.operation import state
from fhir_server.operation.door import STILL_OPEN
from fhir_server.operation.gate import STILL_WRITTEN
from fhir_server.settings import OperationLevel
from fhir_server.smart.clients import clients
from fhir_server.smart.tokens import tokens
from tests.maintenance.operator import STORES, Operator, new_operator, teen_record
from tests.operation.running import ask_for, opened, running, sign_in
from tests.scim.environment import CLIENT, USER
from tests.served import micros

NOTICE = "It will end at 14:00."
WRITTEN = {"resourceType": "Patient", "id": "made-now", "name": [{"family": "New"}]}
BATCH = {
    "resourceType": "Bundle",
    "type": "batch",
    "entry": [
        {"request": {"method": "GET", "url": "Patient/teen"}},
        {"request": {"method": "PUT", "url": "Patient/made-now"}, "resource": WRITTEN},
        {"request": {"method": "DELETE", "url": "Observation/teen-hemoglobin"}},
    ],
}
READS = (
    ("GET", "/fhir/metadata", None),
    ("GET", "/fhir/Patient/teen", None),
    ("HEAD", "/fhir/Patient/teen", None),
    ("GET", "/fhir/Patient/teen/_history", None),
    ("GET", "/fhir/Patient/teen/$everything", None),
    ("GET", "/fhir/Observation?patient=teen", None),
    ("GET", "/fhir/AuditEvent", None),
    ("POST", "/fhir/Patient/$validate", {"resourceType": "Patient"}),
    ("POST", "/fhir/ValueSet/$expand", {"resourceType": "Parameters"}),
    ("GET", "/oauth/jwks", None),
    ("GET", "/.well-known/jwks.json", None),
    ("GET", "/.well-known/openid-configuration", None),
    ("POST", "/oauth/introspect", {"token": "x"}),
    ("POST", "/oauth/token", {"grant_type": "refresh_token", "refresh_token": "unknown", "client_id": "demo-public"}),
)
WRITES = (
    ("PUT", "/fhir/Patient/made-now", WRITTEN),
    ("POST", "/fhir/Patient", {**WRITTEN, "id": "x"}),
    ("PUT", "/fhir/Patient/made-now", b"{ this is not parsed"),
    ("DELETE", "/fhir/Observation/teen-hemoglobin", None),
    ("DELETE", "/fhir/Observation?_id=teen-hemoglobin", None),
    ("PUT", "/fhir/Patient?_id=made-now", WRITTEN),
    ("PATCH", "/fhir/Patient/made-now", {"resourceType": "Parameters"}),
    ("POST", "/fhir", {**BATCH, "type": "transaction"}),
    ("POST", "/fhir/Patient/teen/$meta-add", {"resourceType": "Parameters"}),
    ("GET", "/fhir/$export", None),
    ("POST", "/fhir/$export", {"resourceType": "Parameters"}),
)


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    made = new_operator(request.param, tmp_path, monkeypatch)
    monkeypatch.setattr(state, "MAX_AGE", 0.0)  # each write asks anew; nothing here waits
    monkeypatch.setattr(state, "_INTERVAL", 0.001)
    teen_record(made).close()
    yield made


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(state, "_INTERVAL", 0.001)
    monkeypatch.setattr("fhir_server.cli.operation.MAX_AGE", 0.0)
    made = new_operator("sqlite", tmp_path, monkeypatch)
    teen_record(made).close()
    return made


async def backend_token(url: str) -> dict[str, str]:
    async with opened(url) as store:
        token = await tokens.issue_operator_token(store, "demo-backend", "system/*.cruds", micros("2026-11-21T12:00:00-05:00"))
    return {"Authorization": f"Bearer {token}"}


async def lasting(url: str) -> tuple[Any, ...]:
    """All that must not change while the server is read-only: resources with their versions, and lasting records."""
    async with opened(url) as store:
        kinds = ("user", "client", "signing-key", "store-fact", "export", "invitation", "client-invitation", "changing-account")
        assert not STILL_WRITTEN & set(kinds)
        records = [await store.key_values.list_all(kind, 0) for kind in kinds]
        async with store.snapshot() as snapshot:
            past = await snapshot.with_past_unfiltered(("", ""), 10_000)
            epoch = await snapshot.permission_epoch("teen")
        return records, past, epoch


async def send(http: httpx.AsyncClient, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    if path.startswith("/fhir"):
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        later = {"Prefer": "respond-async"} if "$export" in path else {}
        sent = {"Content-Type": "application/fhir+json", "Accept": "application/json", **later, **headers}
        return await http.request(method, path, content=content, headers=sent)
    return await http.request(method, path, data=body, headers={"Accept": "application/json"})


async def until(http: httpx.AsyncClient, level: str) -> None:
    """Wait until the server has read what was asked for."""
    text = {"normal": "ready", "read-only": "ready, read-only", "maintenance": "maintenance"}[level]
    while (await http.get("/readyz")).text != text:
        await asyncio.sleep(0.001)


def served(operator: Operator, job: Callable[[httpx.AsyncClient, dict[str, str]], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        headers = await backend_token(operator.url)
        async with running(operator.url, **settings) as http:
            await job(http, headers)

    asyncio.run(run())


def assert_refused(answer: httpx.Response, *, says: str) -> None:
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60"), (answer.request.url, answer.text)
    kind = answer.headers["content-type"]
    if "fhir+json" in kind:
        issue = answer.json()["issue"][0] if answer.content else {"code": "transient", "diagnostics": says}
        assert issue["code"] == "transient" and says in issue["diagnostics"]
    elif answer.content and "json" in kind:
        assert answer.json()["error"] == "temporarily_unavailable" and says in answer.json()["error_description"]
    elif answer.content:
        assert says in answer.text and "<h1" in answer.text


def test_read_only_server_reads_and_refuses_each_write(operator: Operator) -> None:
    async def job(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        normal = [(await send(http, *read, headers)).status_code for read in READS]
        assert (await send(http, *WRITES[0], headers)).status_code == 201, "the control"
        await ask_for(operator.url, "read-only", NOTICE)
        await until(http, "read-only")
        before = await lasting(operator.url)
        assert [(await send(http, *read, headers)).status_code for read in READS] == normal
        for write in WRITES:
            assert_refused(await send(http, *write, headers), says=NOTICE)
        answer = await send(http, "POST", "/fhir", BATCH, headers)
        assert [entry["response"]["status"] for entry in answer.json()["entry"]] == ["200", "503", "503"]
        assert (await send(http, *WRITES[0], {})).status_code == 401
        assert await lasting(operator.url) == before
        await ask_for(operator.url, "normal")
        await until(http, "normal")
        assert (await send(http, *WRITES[0], headers)).status_code == 200

    served(operator, job)


def test_read_only_server_knows_before_each_write(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was not told by its clock, because it was paused, still begins no write."""
    monkeypatch.setattr(state, "_INTERVAL", 3600.0)

    async def job(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        assert (await send(http, *WRITES[0], headers)).status_code == 201, "the control"
        await ask_for(operator.url, "read-only")
        assert_refused(await send(http, *WRITES[0], headers), says=state.READ_ONLY)

    served(operator, job)


def test_pages_that_change_something_are_refused_in_plain_words(sqlite: Operator) -> None:
    async def job(http: httpx.AsyncClient, _: dict[str, str]) -> None:
        await ask_for(sqlite.url, "read-only", NOTICE)
        await until(http, "read-only")
        assert (await sign_in(http, "adult")).status_code == 303  # it ends the browser's earlier session, which is always possible
        before = await lasting(sqlite.url)
        assert "Sign out" in (await http.get("/")).text and (await http.get("/account")).status_code == 200
        for path in (
            "/sharing",
            "/sharing/end",
            "/sharing/level",
            "/sharing/withdraw",
            "/account/password",
            "/account/second",
            "/accept",
            "/join",
            "/links",
            "/set-password",
            "/register-app",
        ):
            assert_refused(await http.post(path, data={"x": "1"}), says=NOTICE)
        for method, path in (("POST", "/oauth/register"), ("PUT", "/oauth/register/x"), ("DELETE", "/oauth/register/x")):
            assert_refused(await http.request(method, path, headers={"Accept": "application/json"}), says=NOTICE)
        assert_refused(await http.get("/links/callback?state=x"), says=NOTICE)
        assert await lasting(sqlite.url) == before
        assert (await http.post("/sign-out", data={})).status_code != 503

    served(sqlite, job)


def test_scim_reads_and_refuses_each_change(sqlite: Operator) -> None:
    async def job(http: httpx.AsyncClient, _: dict[str, str]) -> None:
        async with opened(sqlite.url) as store:
            await clients.save(store, CLIENT)
            token = await tokens.issue_operator_token(store, CLIENT.client_id, "system/scim", micros("2026-11-21T12:00:00-05:00"))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/scim+json"}
        new = json.dumps({"schemas": [USER], "userName": "new"}).encode()
        assert (await http.post("/scim/v2/Users", content=new, headers=headers)).status_code == 201, "the control"
        id = (await http.get("/scim/v2/Users", headers=headers)).json()["Resources"][0]["id"]
        await ask_for(sqlite.url, "read-only", NOTICE)
        await until(http, "read-only")
        before = await lasting(sqlite.url)
        assert (await http.get(f"/scim/v2/Users/{id}", headers=headers)).status_code == 200
        later = new.replace(b"new", b"later")
        for method, path in (("POST", "/scim/v2/Users"), ("PUT", f"/scim/v2/Users/{id}"), ("DELETE", f"/scim/v2/Users/{id}")):
            answer = await http.request(method, path, content=later, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60") and NOTICE in answer.json()["detail"]
        assert await lasting(sqlite.url) == before

    served(sqlite, job)


def test_maintenance_refuses_all_but_health_and_metrics(sqlite: Operator) -> None:
    async def job(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        for method, path, body in (*READS, *WRITES):
            assert_refused(await send(http, method, path, body, headers), says=state.MAINTENANCE)
        for path in ("/", "/sign-in", "/account", "/apps", "/scim/v2/Users", "/unknown"):
            assert_refused(await http.get(path), says=state.MAINTENANCE)
        assert (await http.get("/portal.css")).status_code == 200 and (await http.get("/livez")).status_code == 200
        assert ((await http.get("/readyz")).status_code, (await http.get("/readyz")).text) == (503, "maintenance")
        metrics = (await http.get("/metrics", headers={"Authorization": "Bearer a token for metrics"})).text
        assert "fhir_server_operation 2.0" in metrics

    served(sqlite, job, operation="maintenance", metrics_token="a token for metrics")


def test_stricter_of_setting_and_command_holds(sqlite: Operator) -> None:
    async def job(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        assert_refused(await send(http, *WRITES[0], headers), says=state.READ_ONLY)
        await ask_for(sqlite.url, "maintenance")
        await until(http, "maintenance")
        await ask_for(sqlite.url, "normal")
        await until(http, "read-only")
        assert_refused(await send(http, *WRITES[0], headers), says=state.READ_ONLY)

    served(sqlite, job, operation="read-only")


def test_background_work_waits_while_the_server_is_read_only(sqlite: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[OperationLevel] = []
    monkeypatch.setattr("fhir_server.writing.background_work._INTERVAL", 0.0)
    monkeypatch.setattr("fhir_server.app._PURGE_INTERVAL", 0.0)
    now: list[OperationLevel] = ["read-only"]

    async def work(*_: Any) -> None:
        worked.append(now[0])

    monkeypatch.setattr("fhir_server.writing.relabeling_steps._work_off", work)
    monkeypatch.setattr("fhir_server.store.sqlite.key_value.SqliteKeyValues.purge", work)

    async def job(http: httpx.AsyncClient, _: dict[str, str]) -> None:
        for _turn in range(200):
            await asyncio.sleep(0)
        assert worked == []
        await ask_for(sqlite.url, "normal")
        await until(http, "normal")
        now[0] = "normal"
        while len(worked) < 4:
            await asyncio.sleep(0.001)

    async def run() -> None:
        await ask_for(sqlite.url, "read-only")
        async with running(sqlite.url) as http:
            await job(http, {})

    asyncio.run(run())


def test_commands_that_change_records_obey_read_only(sqlite: Operator, tmp_path: Path) -> None:
    file = tmp_path / "new.ndjson"
    file.write_text(json.dumps(WRITTEN) + "\n")
    told = sqlite.must("operation", "read-only", "--reason", "a copy is made", "--notice", NOTICE)
    assert told.startswith("read-only: records can be read, nothing can be changed, since 2026-11-21") and NOTICE in told
    assert sqlite.must("operation") == told
    for command in (
        ("load", str(file)),
        ("relabel",),
        ("purge",),
        ("erase", "Patient/teen", "--reason", "x", "--yes", "--report", str(tmp_path / "report")),
    ):
        refused = sqlite.run(*command)
        assert refused.exit_code == 1 and "read-only" in refused.output, (command, refused.output)
    sqlite.must("operation", "maintenance", "--reason", "an upgrade")
    sqlite.must("load", str(file))
    assert sqlite.must("operation", "normal").startswith("normal: everything is allowed")
    events = [line for line in sqlite.must("journal").splitlines() if '"change-operation"' in line]
    assert len(events) == 3 and "a copy is made" in events[0]


# Outside the FHIR API and SCIM: whatever is no GET and not STILL_OPEN.  A new path belongs into one of the two.
REFUSED = {
    "/accept", "/join", "/account/password", "/account/results", "/account/second", "/account/second/confirm", "/account/second/end",
    "/links", "/links/{id}/unlink", "/oauth/register", "/oauth/register/{client_id}", "/register-app", "/set-password",
    "/sharing", "/sharing/code", "/r/{key}/reports/{id}", "/r/{key}/{section}/{id}", "/sharing/end",
    "/sharing/level", "/sharing/withdraw",
}  # fmt: skip


def test_each_page_that_takes_a_form_is_open_or_refused() -> None:
    from fhir_server.app import application
    from fhir_server.settings import Settings

    found: set[str] = set()

    def walk(route: Any) -> None:
        inner = getattr(route, "original_router", None)
        for each in inner.routes if inner is not None else ():
            walk(each)
        if {"POST", "PUT", "PATCH", "DELETE"} & set(getattr(route, "methods", None) or ()):
            found.add(route.path)

    app: Any = application(Settings(store="memory:", mode="test"))
    for route in app._app._pages._app.routes:
        walk(route)
    assert {path for path in found if not path.startswith("/scim/")} == STILL_OPEN | REFUSED
