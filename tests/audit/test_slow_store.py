"""The audit log while the store is slow or fails: lines stay in order, and requests succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from fhir_server import audit
from fhir_server.audit import LOG_NAME, broken_links
from tests.served import Served, call
from tests.waiting import let_others_run


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    yield server
    server.close()


@pytest.mark.parametrize("fails", [False, True])
def test_audit_lines_stay_unique_and_ordered_on_a_slow_store(served: Served, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    right, begun, finish = served.parts.store.append_log, asyncio.Event(), asyncio.Event()

    async def slow_at_first(journal: str, lines: Iterable[bytes]) -> None:
        kept = list(lines)
        if not begun.is_set():
            begun.set()
            await finish.wait()
            if fails:
                raise OSError("an election")
        await right(journal, kept)

    async def two_at_once() -> Any:
        first = asyncio.create_task(served.parts.auditor.flush())
        await begun.wait()
        await call(served.api, "GET", "/Patient/adult", b"", {"authorization": f"Bearer {token}"}, b"")
        second = asyncio.create_task(served.parts.auditor.flush())
        await let_others_run()
        finish.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    token = served.token()
    served.get(token, "Patient/adult")
    monkeypatch.setattr(served.parts.store, "append_log", slow_at_first)
    first, second = served.run(two_at_once())
    assert isinstance(first, OSError) is fails and second is None
    served.run(served.parts.auditor.flush())
    kept = served.run(served.parts.store.read_log(LOG_NAME))
    assert len(kept) == 2 and broken_links(kept) == []


@pytest.mark.parametrize("stops", ["close", "cancelled caller"])
def test_lines_are_stored_once_if_the_server_stops_while_appending(served: Served, stops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, begun, finish = served.parts.store.append_log, asyncio.Event(), asyncio.Event()

    async def slow_to_answer(journal: str, lines: Iterable[bytes]) -> None:
        await right(journal, lines)
        begun.set()
        await finish.wait()

    async def stopped_while_appending() -> None:
        appending = asyncio.create_task(served.parts.auditor.flush())
        if stops == "close":
            served.parts.auditor._task = appending
        await begun.wait()
        if stops == "close":
            closing = asyncio.create_task(served.parts.auditor.close())
        else:
            appending.cancel()
            closing = asyncio.create_task(served.parts.auditor.flush())
        await let_others_run()
        finish.set()
        await closing

    served.get(served.token(), "Patient/adult")
    monkeypatch.setattr(served.parts.store, "append_log", slow_to_answer)
    served.run(stopped_while_appending())
    kept = served.run(served.parts.store.read_log(LOG_NAME))
    assert len(kept) == 1 and broken_links(kept) == []


def test_requests_succeed_while_the_audit_log_cannot_be_written(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any) -> None:
        raise OSError("an election")

    token = served.token()
    with monkeypatch.context() as patch:
        patch.setattr(audit, "_FLUSH_AT", 1)
        patch.setattr(served.parts.store, "append_log", full)
        assert [served.get(token, "Patient/adult").status for _ in range(3)] == [200] * 3
    served.run(served.parts.auditor.flush())
    kept = served.run(served.parts.store.read_log(LOG_NAME))
    assert len(kept) == 3 and broken_links(kept) == []
