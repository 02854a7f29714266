"""The line of a write is stored with the write, whenever its process is killed, and appended to the chain once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.api import FhirApi
from fhir_server.audit import LOG_NAME, AuditLog
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.pending_lines import PendingLines
from fhir_server.audit.purge import plan, purge
from fhir_server.audit.verification import verify
from fhir_server.clock import SECOND
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.maintenance.examination import examine
from fhir_server.settings import Settings
from fhir_server.smart.core.context import DAY
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry, Store, open_store
from fhir_server.store.backup import restore_backup, write_backup
from fhir_server.store.mongodb import logs
from fhir_server.store.mongodb.transaction import MongoTransaction
from tests.mongo.shared_mongod import emptied_url
from tests.served import KEY, Served, store_url

KEYS = ChainKeys(KEY)


def basic(name: str) -> dict[str, Any]:
    return {"resourceType": "Basic", "id": name, "code": {"text": "x"}, "subject": {"reference": "Patient/p"}}


def transaction(names: list[str]) -> dict[str, Any]:
    entries = [{"request": {"method": "PUT", "url": f"Basic/{name}"}, "resource": basic(name)} for name in names]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def dying(patch: pytest.MonkeyPatch) -> None:
    """From now on each process dies after the commit of a write, before it does anything else: here, it does nothing else."""

    async def record(api: FhirApi, request: Request, audit: AuditContext, response: Any, line: Any) -> Any:
        return response

    patch.setattr(FhirApi, "_record", record)


@pytest.fixture(params=["sqlite", "mongodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url(request.param, tmp_path)


def server(url: str) -> Served:
    served = Served(url, seeds=False)
    assert served.request(served.token(), "PUT", "Patient/p", body={"resourceType": "Patient", "id": "p"}).status in (200, 201)
    return served


def writes_of_a_killed_server(url: str, patch: pytest.MonkeyPatch) -> list[str]:
    """Write, each time as a server that is killed between the commit and the append.  Returns the names of what is stored."""
    served = server(url)
    served.run(served.parts.auditor.flush())
    token = served.token()
    with patch.context() as killed:
        dying(killed)
        many = [f"m{number}" for number in range(60)]
        assert served.request(token, "PUT", "Basic/a", body=basic("a")).status == 201
        assert served.request(token, "PUT", "Basic/a", body=basic("a") | {"code": {"text": "y"}}).status == 200
        assert served.request(token, "POST", "", body=transaction(many)).status == 200
        assert served.request(token, "DELETE", "Basic/m1").status in (200, 204)
    killed = served.parts.auditor._lines
    assert not killed._queue and killed._storing is None  # nothing is left to this process
    served.close()
    return ["a", "a", "m1", *many]


def recorded(url: str, *, start: bool) -> Counter[str]:
    """How many lines name each Basic, after a check of the chain; ``start``: after the next start of a server."""

    async def read() -> Counter[str]:
        store = open_store(url)
        log = AuditLog(store, KEYS)
        if start:
            await log.prepare()
        assert (await verify(store, KEYS)).findings == []
        names: Counter[str] = Counter()
        for event in await events(store):
            names.update(named(event))
        await log.close()
        await store.close()
        return names

    return asyncio.run(read())


async def events(store: Store) -> list[dict[str, Any]]:
    return [json.loads(line)["event"] for _, line in await store.read_log(LOG_NAME, 0, 10_000)]


def named(event: dict[str, Any]) -> Iterator[str]:
    for entity in event.get("entity", ()):
        type, _, id = entity.get("what", {}).get("reference", "").partition("/")
        if type == "Basic":
            yield id


async def pending_ids(store: Store) -> list[str]:
    return [id for id, _ in await store.pending_entries(LOG_NAME)]


def test_kill_after_the_commit_leaves_no_write_without_a_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = writes_of_a_killed_server(url, monkeypatch)
    assert recorded(url, start=True) == Counter(written)
    assert recorded(url, start=True) == Counter(written)  # and another start stores none twice


def test_check_finds_a_line_that_is_not_stored_with_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the line follows the write, as it did once."""
    monkeypatch.setattr(MongoTransaction, "log_at_commit", lambda transaction, log, entry, link, record: entry)
    url = emptied_url()
    assert "a" in writes_of_a_killed_server(url, monkeypatch)
    assert "a" not in recorded(url, start=True)


def test_line_waits_in_mongodb_until_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    url = emptied_url()
    written = writes_of_a_killed_server(url, monkeypatch)
    assert recorded(url, start=False) == Counter()

    found = asyncio.run(examine(Settings(store=url, mode="test", secret_key=KEY)))
    assert any(one.subject == "audit" and one.level == "note" and "4 lines" in one.sentence for one in found)
    assert recorded(url, start=True) == Counter(written)


def on_mongodb(scenario: Callable[[Served, Store], Any]) -> Any:
    """Run a scenario with a server on MongoDB."""
    served = server(emptied_url())
    try:
        served.run(served.parts.auditor.flush())
        return served.run(scenario(served, served.parts.store))
    finally:
        served.close()


async def committed(store: Store, log: AuditLog, name: str, *, fails: bool = False) -> Any:
    """A write of a process that is killed after its commit, unless it goes on with the result; if it ``fails``, before it."""
    request = Request("PUT", ("Basic", name), (), {}, b"", 5 * SECOND)
    add = log.with_write(request, AuditContext())

    async def job(tx: Any) -> Any:
        await tx.advance_epoch(None)
        done = add(tx, 201)
        assert done is not None and done.pending is not None
        if fails:
            raise ValueError("the job fails")
        return done

    return await store.write(job)


async def names_in(store: Store) -> list[str]:
    assert (await verify(store, KEYS)).findings == []
    return [name for event in await events(store) for name in named(event)]


def test_write_that_is_rolled_back_leaves_no_line() -> None:
    async def scenario(served: Served, store: Store) -> None:
        with pytest.raises(ValueError, match="the job fails"):
            await committed(store, served.parts.auditor, "gone", fails=True)
        assert await pending_ids(store) == []
        await committed(store, served.parts.auditor, "kept")
        assert len(await pending_ids(store)) == 1

    on_mongodb(scenario)


def test_refused_writes_have_one_line_with_their_own_status(url: str) -> None:
    served = server(url)
    token, reader = served.token(), served.token(scope="system/*.rs")
    assert served.request(token, "PUT", "Basic/a", body=basic("a")).status == 201
    bundle = transaction(["b", "a"])
    bundle["entry"][1]["request"]["ifMatch"] = 'W/"7"'
    assert served.request(reader, "PUT", "Basic/a", body=basic("a")).status == 403
    assert served.request(token, "PUT", "Basic/a", body=basic("a"), headers={"if-match": 'W/"7"'}).status == 412
    assert served.request(token, "POST", "", body=bundle).status == 412
    assert served.request(token, "PUT", "Basic/a", body=basic("a")).status == 200  # nothing changes
    served.run(served.parts.auditor.flush())
    found = [(event["outcomeDesc"], list(named(event))) for event in served.run(events(served.parts.store)) if "a" in named(event)]
    left = served.run(pending_ids(served.parts.store))
    served.close()
    expected = [("201", ["a"]), ("403", ["a"]), ("412", ["a"]), ("412", ["b", "a"]), ("200", ["a"])]
    assert sorted(found) == sorted(expected) and left == []  # SQLite stores lines of writes with them, and the others together
    assert recorded(url, start=True)["a"] == 5


def test_processes_that_start_together_append_each_line_once() -> None:
    async def scenario(served: Served, store: Store) -> None:
        for number in range(30):
            await committed(store, served.parts.auditor, f"w{number}")
        await asyncio.gather(*(AuditLog(store, KEYS).prepare() for _ in range(3)))
        assert sorted(await names_in(store)) == sorted(f"w{number}" for number in range(30))
        assert await pending_ids(store) == []

    on_mongodb(scenario)


def test_line_that_another_process_appended_meanwhile_is_left_out() -> None:
    """The process of the write was so slow that another one took it for dead."""

    async def scenario(served: Served, store: Store) -> None:
        log, taken = served.parts.auditor, list[LogEntry]()
        right = store.append_log

        async def slow(log_name: str, entries: Any, link: Any) -> Any:
            taken.extend(entries)
            await AuditLog(open_store(served.settings.store), KEYS).prepare()
            return await right(log_name, entries, link)

        done = await committed(store, log, "slow")
        store.append_log = slow  # type: ignore[method-assign]
        log.append_recorded(done)
        await log.record_event(SecurityEvent("sign-in", username="reader"), 0)
        await log.flush()
        store.append_log = right  # type: ignore[method-assign]
        assert [entry.pending != "" for entry in taken] in ([True, False], [True])
        assert await names_in(store) == ["slow"] and await pending_ids(store) == []

    on_mongodb(scenario)


def test_line_whose_record_was_removed_is_appended_by_its_process(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served, store: Any) -> None:
        log = served.parts.auditor
        done = [await committed(store, log, name) for name in ("first", "removed", "last")]
        await store.discard_pending(LOG_NAME, [done[1].pending.pending])
        for one in done:
            log.append_recorded(one)
        await log.flush()
        assert sorted(await names_in(store)) == ["first", "last", "removed"] and await pending_ids(store) == []

    on_mongodb(scenario)
    assert "1 pending audit lines were removed" in caplog.text


def test_running_process_appends_what_it_sees_at_two_looks() -> None:
    async def scenario(served: Served, store: Store) -> None:
        await committed(store, served.parts.auditor, "w")
        other = AuditLog(store, KEYS)
        other.pending = PendingLines(store, KEYS, other._append)
        seen = await other.pending.append(frozenset())
        assert len(seen) == 1 and await names_in(store) == []
        await other.pending.append(seen)
        assert await names_in(store) == ["w"] and await pending_ids(store) == []

    on_mongodb(scenario)


async def copied(store: Any, id: str) -> Any:
    return await store.connection.locks.find_one({"_id": logs.pending_id(LOG_NAME, id)})


@pytest.mark.parametrize("change", ["text", "id"])
def test_pending_line_of_somebody_without_the_key_is_found(change: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served, store: Any) -> None:
        await committed(store, served.parts.auditor, "victim")
        (id,) = await pending_ids(store)
        document = await copied(store, id)
        if change == "text":
            await store.connection.locks.update_one(
                {"_id": document["_id"]}, {"$set": {"entry": document["entry"].replace(b"victim", b"nobody")}}
            )
        else:
            await store.connection.locks.insert_one(document | {"_id": logs.pending_id(LOG_NAME, "0" * 24)})
        await AuditLog(store, KEYS).prepare()
        result = await verify(store, KEYS)
        assert result.count == 1 and "pending" in result.findings[0]
        found = [name for event in await events(store) for name in named(event)]
        assert found == ([] if change == "text" else ["victim"]) and len(await pending_ids(store)) == 1

    on_mongodb(scenario)
    assert "not written with this server's secret key" in caplog.text


def test_pending_line_that_is_put_back_is_not_appended_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served, store: Any) -> None:
        await committed(store, served.parts.auditor, "w")
        document = await copied(store, (await pending_ids(store))[0])
        await AuditLog(store, KEYS).prepare()
        await store.connection.locks.insert_one(document)
        await AuditLog(store, KEYS).prepare()
        assert await names_in(store) == ["w"] and await pending_ids(store) == []
        log = AuditLog(store, KEYS)
        await log.prepare()
        day = served.parts.clock() + DAY
        await purge(store, log, await plan(store, log, day, []), SecurityEvent("purge-audit"), lambda: day)
        assert await names_in(store) == []
        await store.connection.locks.insert_one(document)
        await AuditLog(store, KEYS).prepare()
        assert await names_in(store) == [] and await pending_ids(store) == []

    on_mongodb(scenario)
    assert caplog.text.count("were put back") == 2


def test_backup_made_before_the_append_has_the_line(tmp_path: Path) -> None:
    restored = emptied_url("restored")

    async def scenario(served: Served, store: Store) -> None:
        await committed(store, served.parts.auditor, "w")
        await write_backup(served.settings.store, store, tmp_path / "copy", lambda done, total: None)
        with MongoClient[Any](restored) as client:
            client.drop_database(client.get_default_database())
        await restore_backup(tmp_path / "copy", restored)

    on_mongodb(scenario)
    assert recorded(restored, start=True) == Counter(["w"])


def test_writes_are_refused_while_too_many_lines_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    served = server(emptied_url())
    token = served.token()
    monkeypatch.setattr("fhir_server.audit.line_queue._MAX_LINES", 0)
    assert served.request(token, "PUT", "Basic/refused", body=basic("refused")).status == 503
    monkeypatch.undo()
    assert served.request(token, "GET", "Basic/refused").status == 404
    assert served.request(token, "PUT", "Basic/a", body=basic("a")).status == 201
    served.close()


def test_write_is_answered_though_its_line_cannot_be_appended_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is durable with the write, and a later attempt appends it."""
    url = emptied_url()
    served = server(url)
    served.run(served.parts.auditor.flush())
    right, failures = served.parts.store.append_log, 0

    async def failing(*given: Any) -> None:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise OSError("the database is away")
        await right(*given)

    monkeypatch.setattr(served.parts.store, "append_log", failing)
    assert served.request(served.token(), "PUT", "Basic/a", body=basic("a")).status == 201

    async def wait() -> None:
        while served.parts.auditor._lines._storing is not None:
            await asyncio.sleep(0.01)

    served.run(wait())
    served.close()
    assert failures == 3 and recorded(url, start=False) == Counter(["a"])
