"""A deleted export stays deleted, whatever else is under way; and the number of exports is limited.  On every store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.interactions import bulk_export_job
from fhir_server.interactions.bulk_export_job import MAX_EXPORTS
from fhir_server.smart.core import grant_index, token_grants
from tests.seeded import seeded
from tests.served import Served, call, store_url

ASYNC = {"prefer": "respond-async", "accept": "application/fhir+json"}
KINDS = "$export?_type=Patient,Observation,Encounter"


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path))
    yield server
    server.close()


def kicked(server: Served, token: str) -> str:
    answer = server.request(token, "GET", KINDS, headers=ASYNC)
    assert answer.status == 202, answer.body
    return answer.headers["content-location"]


def stored(server: Served, kind: str) -> int:
    return len(server.run(server.parts.store.key_values.list_all(kind, server.parts.clock())))


def plant(server: Served, monkeypatch: pytest.MonkeyPatch, moment: str, act: Any) -> list[str]:
    """Run ``act`` when the key-value store is first asked for this, for example ``replace_value export``.  Returns what was asked."""
    values, asked = server.parts.store.key_values, []

    def watched(name: str, kept: Any) -> Any:
        async def step(kind: str, key: str, *rest: Any) -> Any:
            asked.append(f"{name} {kind}")
            if asked.count(moment) == 1 and asked[-1] == moment:
                await act()
            return await kept(kind, key, *rest)

        return step

    for name in ("get", "put", "pop", "put_if_absent", "replace_value"):
        monkeypatch.setattr(values, name, watched(name, getattr(values, name)))
    return asked


@pytest.mark.parametrize("moment", ["put_if_absent export-turn", "put export-page", "replace_value export", "never"])
def test_export_deleted_during_a_status_request_stays_deleted(server: Served, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    token = server.token()
    location = kicked(server, token)
    path = location.removeprefix(server.settings.base)
    answers: list[int] = []

    async def delete() -> None:
        answers.append((await call(server.api, "DELETE", path, b"", {"authorization": f"Bearer {token}"}, b"")).status)

    asked = plant(server, monkeypatch, moment, delete)
    status = server.get(token, location).status
    assert {"put_if_absent export-turn", "put export-page", "replace_value export"} <= set(asked) or moment == "put_if_absent export-turn"
    monkeypatch.undo()
    if moment == "never":  # the control
        assert status == server.get(token, location).status == 200 and stored(server, "export-page") > 0
        return
    assert (answers, status) == ([202], 404)
    assert server.get(token, location).status == 404
    assert [stored(server, kind) for kind in ("export", "export-page", "export-slot")] == [0, 0, 0]


@pytest.mark.parametrize("how", ["delete", "revoke", "never"])
def test_file_does_not_end_as_if_whole_when_export_or_token_ends(server: Served, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(bulk_export_job, "_PAGE", 2)
    token = server.token()
    location = kicked(server, token)
    manifest = server.get(token, location)
    while manifest.status == 202:
        manifest = server.get(token, location)
    url = next(output["url"] for output in manifest.json["output"] if output["type"] == "Observation")
    path, found = location.removeprefix(server.settings.base), []
    page_of = bulk_export_job._versions_at

    async def late(*arguments: Any, **named: Any) -> Any:
        found.append(how)
        if len(found) == 2 and how == "delete":
            await call(server.api, "DELETE", path, b"", {"authorization": f"Bearer {token}"}, b"")
        if len(found) == 2 and how == "revoke":
            store, now = server.parts.store, server.parts.clock()
            await grant_index.revoke(store, await token_grants.active_grants(store, now))
        return await page_of(*arguments, **named)

    monkeypatch.setattr(bulk_export_job, "_versions_at", late)
    status, is_whole = server.run(_fetched(server, token, url))
    assert (status, is_whole) == (200, how == "never")
    assert len(found) > 3 if how == "never" else len(found) <= 3


async def _fetched(server: Served, token: str, url: str) -> tuple[int, bool]:
    """The status of a file, and whether its body came to its end; a server closes the connection if it did not."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {token}".encode()), (b"accept", b"application/fhir+ndjson")]
    path = url.removeprefix(server.settings.base)
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "client": ("192.0.2.7", 4711)}
    await server.api(scope, receive, send)
    return sent[0]["status"], not sent[-1].get("more_body", False)


def test_number_of_exports_is_limited_until_one_is_deleted(server: Served) -> None:
    token, other = server.token(), server.app_token("adult", "adult")
    locations = [kicked(server, token) for _ in range(MAX_EXPORTS)]
    refused = server.request(token, "GET", KINDS, headers=ASYNC)
    assert (refused.status, refused.headers["retry-after"]) == (429, "60") and refused.json["issue"][0]["code"] == "throttled"
    assert server.request(other, "GET", "Patient/$export", headers=ASYNC).status == 202  # nobody else is concerned
    assert server.request(token, "DELETE", locations[7]).status == 202
    assert server.request(token, "DELETE", locations[7]).status == 404
    assert server.request(token, "GET", KINDS, headers=ASYNC).status == 202
    assert server.request(token, "GET", KINDS, headers=ASYNC).status == 429


def test_parallel_deletions_free_one_place(server: Served) -> None:
    token = server.token()
    path = kicked(server, token).removeprefix(server.settings.base)
    for _ in range(MAX_EXPORTS - 1):
        kicked(server, token)

    async def both() -> list[int]:
        bearer = {"authorization": f"Bearer {token}"}
        deletions = (call(server.api, "DELETE", path, b"", bearer, b"") for _ in range(4))
        return sorted([answer.status for answer in await asyncio.gather(*deletions)])

    assert server.run(both()) == [202, 404, 404, 404]
    assert stored(server, "export-slot") == MAX_EXPORTS - 1
