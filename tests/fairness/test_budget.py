"""A request spends from one budget, past which it is refused, and lets others go on while it works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server import app, budget
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.errors import Problem
from fhir_server.store.sqlite import SqliteStore, long_reads
from tests.seeded import seeded
from tests.served import Answer, Served, call

EVERYTHING = "Patient/adult/$everything"


@pytest.fixture(scope="module", params=["sqlite", "memory", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from tests.served import store_url

    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


@pytest.fixture(scope="module")
def feed(served: Served) -> str:
    return served.token()


def limited(served: Served, **limits: float) -> Any:
    """The server's API with another budget for each request."""
    return app.FhirApi(
        served.parts.service, served.parts.clock, served.parts.auditor,
        replace_limits(served, BudgetLimits(**limits)), {},
    )  # fmt: skip


def replace_limits(served: Served, limits: BudgetLimits) -> Any:
    return app.request_limits(served.settings)._replace(budget=limits)


def batch(*urls: str) -> bytes:
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    return json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()


def ask(api: Any, served: Served, token: str, path: str, body: bytes | None = None) -> Answer:
    path, _, query = path.partition("?")
    headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
    return served.run(call(api, "GET" if body is None else "POST", "/" + path, query.encode(), headers, body or b""))


@pytest.mark.parametrize(
    ("limits", "text"),
    [({"rows": 3}, "its 3 resources"), ({"size": 3000}, "exceed 3000 bytes"), ({"seconds": 1e-9}, "seconds of work")],
)
@pytest.mark.parametrize("path", ["Observation?_count=50", EVERYTHING, "Patient?_revinclude=Observation:subject"])
def test_a_request_past_its_budget_is_refused(served: Served, feed: str, limits: dict[str, float], text: str, path: str) -> None:
    answer = ask(limited(served, **limits), served, feed, path)
    assert answer.status == 503 and answer.headers["retry-after"]
    (issue,) = answer.json["issue"]
    assert issue["code"] == "too-costly" and text in issue["diagnostics"]
    assert ask(limited(served), served, feed, path).status == 200


@pytest.mark.parametrize("limits", [{"rows": 700}, {"size": 700_000}])
def test_all_entries_of_a_batch_share_one_budget(served: Served, feed: str, limits: dict[str, float]) -> None:
    body = batch(*[EVERYTHING] * 12)
    statuses = [entry["response"]["status"] for entry in ask(limited(served, **limits), served, feed, "", body).json["entry"]]
    assert statuses == sorted(statuses) and {statuses[0], statuses[-1]} == {"200", "503"}
    whole = ask(limited(served), served, feed, "", body).json
    assert {entry["response"]["status"] for entry in whole["entry"]} == {"200"}


def test_an_entry_past_the_time_of_the_batch_reads_nothing(served: Served, feed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    right = served.parts.store.snapshot

    def counted() -> Any:
        if (spending := budget.current()) is not None:  # otherwise it is the audit log's, which may wait for a slow disk
            opened.append(1)
            spending.charge(0.4)
        return right()

    monkeypatch.setattr(type(served.parts.store), "snapshot", lambda self: counted())
    answer = ask(limited(served, seconds=1000), served, feed, "", batch(*["Patient/adult"] * 20))
    assert {entry["response"]["status"] for entry in answer.json["entry"]} == {"200"} and len(opened) == 21
    opened.clear()
    answer = ask(limited(served, seconds=1), served, feed, "", batch(*["Patient/adult"] * 20))
    assert [entry["response"]["status"] for entry in answer.json["entry"]] == ["200"] + ["503"] * 19 and len(opened) == 3


def test_a_transaction_past_its_time_stores_nothing(served: Served, feed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fhir_server.interactions import write

    right = write.create_in

    async def costly(*args: Any, **named: Any) -> Any:
        budget.current().charge(400)  # type: ignore[union-attr]
        return await right(*args, **named)

    monkeypatch.setattr(write, "create_in", costly)
    entry = {"request": {"method": "POST", "url": "Basic"}, "resource": {"resourceType": "Basic", "code": {"text": "x"}}}
    body = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry] * 4}).encode()
    assert ask(limited(served, seconds=1000), served, feed, "", body).status == 503
    assert ask(limited(served), served, feed, "Basic?_summary=count").json["total"] == 0
    assert ask(limited(served, seconds=3000), served, feed, "", body).status == 200
    assert ask(limited(served), served, feed, "Basic?_summary=count").json["total"] == 4


def test_a_batch_lets_others_go_on_after_each_entry(served: Served, feed: str) -> None:
    """Counts how often another task gets its turn, not the time."""
    turns = 0

    async def main() -> int:
        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        answer = await call(served.api, "POST", "/", b"", {"authorization": f"Bearer {feed}", "content-type": "application/json"}, body)
        task.cancel()
        return answer.status

    body = batch(*["Observation?_count=5"] * 200)
    assert served.run(main()) == 200
    assert turns >= 200


# ---- SQLite: what takes long runs in a thread ----


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every read of a snapshot takes too long for the event loop.  The list has the threads in which it then ran."""
    import threading

    ran: list[str] = []
    right = long_reads.LongReads.run

    async def run(self: Any, job: Any) -> Any:
        def noted() -> Any:
            ran.append(threading.current_thread().name)
            return job()

        return await right(self, noted)

    monkeypatch.setattr(long_reads.LongReads, "run", run)
    monkeypatch.setattr(long_reads, "_INLINE", -1.0)
    return ran


PATHS = [
    EVERYTHING, "Observation?_sort=-date,code&_count=7", "Observation?_total=accurate&_count=3", "Observation?_summary=count",
    "Patient?_revinclude=Observation:subject&_count=5", "DiagnosticReport?_include=*", "Observation/adult-hiv-screen/_history",
    "Observation?subject=Patient/adult", "Medication?_count=5",
]  # fmt: skip


def test_reads_in_threads_give_the_same_answers(tmp_path: Path, eager: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    server = seeded(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    tokens = [server.token(), server.app_token("adult", "adult"), server.app_token("parent-a", "teen")]
    found = {(token, path): server.get(token, path) for token in tokens for path in PATHS}
    assert len(eager) > len(found) and all(name.startswith("sqlite-reader") for name in eager)
    in_threads = len(eager)
    monkeypatch.setattr(long_reads, "_INLINE", 1000.0)
    server.parts.store._idle.clear()  # type: ignore[attr-defined]
    for (token, path), answer in found.items():
        now = server.get(token, path)
        if "_page" not in now.body.decode():  # links to pages are encrypted anew
            assert (now.status, now.body) == (answer.status, answer.body)
    assert len(eager) == in_threads
    server.close()


def test_a_read_in_a_thread_holds_up_nobody(tmp_path: Path, eager: list[str]) -> None:
    """While a statement runs without end in its thread, other requests are answered."""
    server = Served(f"sqlite:///{tmp_path / 'fhir.sqlite'}", seeds=False)
    store = server.parts.store
    assert isinstance(store, SqliteStore)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"

    async def main() -> tuple[int, str]:
        async with store.snapshot() as snapshot:

            async def read() -> Any:
                return snapshot.rows(endless, ())

            limits = BudgetLimits(seconds=1.0)
            task = asyncio.ensure_future(budget.metered(snapshot._answer(read), Budget(limits)))
            answered = 0
            while not task.done():
                answer = await call(server.api, "GET", "/metadata", b"", {}, b"")
                answered += answer.status == 200
            try:
                await task
            except Problem as problem:
                return answered, problem.kind
        return answered, ""

    answered, kind = server.run(main())
    assert kind == "too_costly" and answered > 3
    server.close()


def test_what_one_thread_spends_counts_for_the_request() -> None:
    async def main() -> float:
        async def work() -> None:
            job = budget.on_account(lambda: budget.current().charge(5))  # type: ignore[union-attr]
            await asyncio.get_running_loop().run_in_executor(None, job)
            with pytest.raises(Problem):
                spending = budget.current()
                assert spending is not None
                spending.remaining()

        await budget.metered(work(), Budget(BudgetLimits(seconds=4)))
        await budget.metered(asyncio.sleep(0), Budget(BudgetLimits()))
        assert budget.current() is None
        return 0

    asyncio.run(main())


def test_waiting_costs_nothing() -> None:
    async def work() -> None:
        await asyncio.sleep(0.05)
        spending = budget.current()
        assert spending is not None and spending.remaining() > 0.01

    async def main() -> None:
        await budget.metered(work(), Budget(BudgetLimits(seconds=0.04)))

    asyncio.run(main())


def test_an_error_in_the_work_reaches_who_awaits_it() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise ValueError("cancelled") from None

    async def main() -> None:
        task = asyncio.ensure_future(budget.metered(work(), Budget(BudgetLimits())))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ValueError, match="cancelled"):
            await task

    asyncio.run(main())


def test_answers_that_a_client_has_not_taken_count_for_its_next_requests(served: Served, feed: str) -> None:
    """A client that opens many connections and reads none of them holds one budget of memory, and no other client is refused."""
    api = limited(served, size=700_000)
    other = served.app_token("adult", "adult")
    assert ask(api, served, feed, "Patient/adult").status == ask(api, served, other, "Patient/adult").status == 200

    async def main() -> list[int]:
        take = asyncio.Event()
        statuses: list[int] = []

        async def unread(token: str) -> None:
            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                elif message.get("body"):
                    await take.wait()

            scope = {"type": "http", "method": "GET", "path": "/" + EVERYTHING, "query_string": b"",
                     "headers": [(b"authorization", f"Bearer {token}".encode())]}  # fmt: skip
            await api(scope, receive, send)

        tasks = []
        for number in range(12):
            tasks.append(asyncio.create_task(unread(feed)))
            while len(statuses) == number:
                await asyncio.sleep(0)
        refused = statuses.count(503)
        assert 0 < refused < 12 and statuses == sorted(statuses)
        tasks.append(asyncio.create_task(unread(other)))
        while len(statuses) == 12:
            await asyncio.sleep(0)
        assert statuses[-1] == 200
        take.set()
        await asyncio.gather(*tasks)
        await unread(feed)
        return statuses

    assert served.run(main())[-1] == 200
