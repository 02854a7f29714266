"""The audit log while the store is slow or fails: no answer without its line, each line once, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from fhir_server import budget
from fhir_server.audit import LOG_NAME, line_queue
from fhir_server.audit.verification import verify
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.request_ids import request_id
from fhir_server.smart.core.security_events import SecurityEvent
from tests.seeded import seeded
from tests.served import Answer, Served, call
from tests.waiting import let_others_run


@pytest.fixture
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


@pytest.fixture
def batched() -> Iterator[Served]:
    server = seeded(audit="batched")
    yield server
    server.close()


class SlowAppends:
    """Replaces the store's ``append_log``: each call waits for :meth:`finish`; then it appends, and raises if it is told to."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = asyncio.Event()
        self.calls = 0
        self.fails = False
        self._finish = asyncio.Event()
        self._right = served.parts.store.append_log
        monkeypatch.setattr(served.parts.store, "append_log", self._append)

    async def _append(self, log: str, entries: Any, link: Any) -> None:
        self.calls += 1
        self.begun.set()
        await self._finish.wait()
        if self.fails:
            raise OSError("no space left")
        await self._right(log, entries, link)

    def finish(self) -> None:
        self._finish.set()


def read(served: Served, token: str) -> Awaitable[Answer]:
    return call(served.api, "GET", "/Patient/adult", b"", {"authorization": f"Bearer {token}"}, b"")


def stored(served: Served) -> int:
    assert served.run(verify(served.parts.store, served.parts.auditor.keys)).findings == []
    return len(served.run(served.parts.store.read_log(LOG_NAME)))


def test_an_answer_waits_until_its_line_is_stored(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.token()

    async def ask() -> tuple[bool, Answer]:
        slow = SlowAppends(served, monkeypatch)
        asking = asyncio.ensure_future(read(served, token))
        await slow.begun.wait()
        await let_others_run()
        early = asking.done()
        slow.finish()
        return early, await asking

    early, answer = served.run(ask())
    assert not early and answer.status == 200 and stored(served) == 1


def test_lines_that_arrive_during_a_commit_share_the_next_one(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.token()

    async def ask() -> tuple[int, list[Answer]]:
        slow = SlowAppends(served, monkeypatch)
        asking = [asyncio.ensure_future(read(served, token))]
        await slow.begun.wait()
        asking += [asyncio.ensure_future(read(served, token)) for _ in range(20)]
        await let_others_run()
        slow.finish()
        answers = await asyncio.gather(*asking)
        return slow.calls, answers

    calls, answers = served.run(ask())
    assert calls == 2 and [answer.status for answer in answers] == [200] * 21 and stored(served) == 21


def test_a_request_whose_line_cannot_be_stored_gets_503(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.token()
    with monkeypatch.context() as patch:
        slow = SlowAppends(served, patch)
        slow.fails = True
        slow.finish()
        refused = served.get(token, "Patient/adult")
    assert refused.status == 503 and refused.json["resourceType"] == "OperationOutcome" and b"adult" not in refused.body
    assert refused.headers["retry-after"] == "1"
    assert served.get(token, "Patient/adult").status == 200 and stored(served) == 1


def test_a_security_event_that_cannot_be_stored_stops_its_page(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowAppends(served, monkeypatch)
    slow.fails = True
    slow.finish()
    with pytest.raises(Exception, match="audit log cannot be written"):
        served.run(served.parts.smart.record(SecurityEvent("sign-in")))


def test_waiting_lines_are_bounded_and_further_requests_get_503(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.token()
    monkeypatch.setattr(line_queue, "_MAX_LINES", 5)

    async def ask() -> list[int]:
        slow = SlowAppends(served, monkeypatch)
        asking = [asyncio.ensure_future(read(served, token))]
        await slow.begun.wait()
        asking += [asyncio.ensure_future(read(served, token)) for _ in range(9)]
        await let_others_run()
        slow.finish()
        return sorted([answer.status for answer in await asyncio.gather(*asking)])

    assert served.run(ask()) == [200] * 5 + [503] * 5
    assert stored(served) == 5


def test_a_write_and_its_line_are_stored_in_one_transaction(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.token()

    async def refuse(*_: Any) -> None:
        raise OSError("only lines with their writes")

    basic = {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}
    served.get(token, "Patient/adult")
    monkeypatch.setattr(served.parts.store, "append_log", refuse)
    assert served.request(token, "POST", "Basic", body=basic).status == 201
    entry = {"request": {"method": "POST", "url": "Basic"}, "resource": basic}
    assert served.request(token, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).status == 200
    assert stored(served) == 3


@pytest.mark.parametrize("answers", ["before", "after"])
def test_an_orderly_stop_during_an_append_stores_each_line_once(served: Served, answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, begun, finish = served.parts.store.append_log, asyncio.Event(), asyncio.Event()

    async def slow(log: str, entries: Any, link: Any) -> None:
        if answers == "after":
            await right(log, entries, link)
        begun.set()
        await finish.wait()
        if answers == "before":
            await right(log, entries, link)

    async def stopped() -> None:
        recorder: Callable[[SecurityEvent], Awaitable[None]] = served.parts.smart.record
        asking = [asyncio.ensure_future(recorder(SecurityEvent("sign-in"))) for _ in range(3)]
        await begun.wait()
        asking[0].cancel()
        closing = asyncio.ensure_future(served.parts.auditor.close())
        await let_others_run()
        finish.set()
        await closing
        await asyncio.gather(*asking, return_exceptions=True)

    monkeypatch.setattr(served.parts.store, "append_log", slow)
    served.run(stopped())
    assert stored(served) == 3


def test_batched_lines_wait_and_are_stored_in_order_at_the_stop(batched: Served) -> None:
    token = batched.token()
    assert [batched.get(token, "Patient/adult").status for _ in range(3)] == [200] * 3
    assert len(batched.run(batched.parts.store.read_log(LOG_NAME))) == 0
    batched.run(batched.parts.auditor.close())
    assert stored(batched) == 3


def test_batched_lines_survive_a_failing_store(batched: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = batched.token()
    with monkeypatch.context() as patch:
        slow = SlowAppends(batched, patch)
        slow.fails = True
        slow.finish()
        assert [batched.get(token, "Patient/adult").status for _ in range(3)] == [200] * 3
        with pytest.raises(Exception, match="audit log cannot be written"):
            batched.run(batched.parts.auditor.flush())
    assert batched.get(token, "Patient/adult").status == 200
    batched.run(batched.parts.auditor.flush())
    assert stored(batched) == 4


def test_a_batched_answer_waits_when_too_many_lines_do(batched: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = batched.token()
    monkeypatch.setattr(line_queue, "_MAX_LINES", 3)
    assert [batched.get(token, "Patient/adult").status for _ in range(4)] == [200] * 4
    assert len(batched.run(batched.parts.store.read_log(LOG_NAME))) == 3
    with monkeypatch.context() as patch:
        slow = SlowAppends(batched, patch)
        slow.fails = True
        slow.finish()
        assert [batched.get(token, "Patient/adult").status for _ in range(3)] == [200, 200, 503]
    batched.run(batched.parts.auditor.flush())
    assert stored(batched) == 6


def test_lines_are_stored_at_nobodys_expense(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that a request begins has lines of others, too: it must not end with that request's budget."""
    right, budgets = served.parts.store.append_log, []

    async def noted(*given: Any) -> Any:
        budgets.append((budget.current(), request_id.get()))
        return await right(*given)

    async def ask() -> None:
        request_id.set("of the request")
        await budget.metered(served.parts.smart.record(SecurityEvent("sign-in")), Budget(BudgetLimits()))

    monkeypatch.setattr(served.parts.store, "append_log", noted)
    served.run(ask())
    assert budgets == [(None, "")] and stored(served) == 1
