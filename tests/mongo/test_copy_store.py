"""A copy of a store in MongoDB gives the same responses in the same order; an interrupted copy resumes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pymongo import MongoClient

from fhir_server.audit import LOG_NAME
from fhir_server.audit.buffer_file import BufferFile, buffer_files
from fhir_server.audit.chain import ChainKeys
from fhir_server.cli import main
from fhir_server.maintenance.copy_store import copy_store
from fhir_server.store import LogEntry, open_store
from fhir_server.store.mongodb import copying
from fhir_server.store.mongodb.copying import _MongoCopySide
from tests.mongo.failpoints import ELECTION, failing, failing_set, url_of
from tests.mongo.shared_mongod import fresh_url
from tests.scenarios.test_scenarios import FILES, Scenario
from tests.seeded import seeded
from tests.served import KEY, ROOT, Answer, Served, make_store
from tests.store.samples import put, record

ASKED = (
    "Observation?_count=5", "Observation?_sort=-date&_count=7", "Observation?_sort=code,-_lastUpdated", "Observation?code=718-7",
    "Observation/adult-hemoglobin/_history", "Observation/gone/_history", "Observation/gone", "Patient/adult/$everything?_count=50",
    "Appointment?_sort=date", "Encounter?_summary=count", "MedicationStatement", "Condition", "Patient",
)  # fmt: skip

# A copy with three rows per page.  It is killed after it has written a page and before it has saved its progress.
KILLED = """
import os, signal, sys
from fhir_server.cli import main
from fhir_server.maintenance import copy_store
from fhir_server.store.mongodb.copying import _MongoCopySide
copy_store._PAGE = 3
notes, note = [], _MongoCopySide._save_progress
async def noted(self, how_far):
    notes.append(how_far)
    if len(notes) == 16:
        os.kill(os.getpid(), signal.SIGKILL)
    await note(self, how_far)
_MongoCopySide._save_progress = noted
main(sys.argv[1:])
"""


def ignore_progress(what: str, done: int, of: int) -> None:
    """Ignore progress reports."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with a history: the seeds, updates, deletions, a row that was deleted and recreated, tokens, audit events."""
    url = f"sqlite:///{tmp_path_factory.mktemp('source') / 'fhir.sqlite'}"
    served = seeded(url)
    feed = served.token()
    hemoglobin = served.get(feed, "Observation/adult-hemoglobin").json
    for text in ("corrected", "corrected again"):
        body = {**hemoglobin, "note": [{"text": text}]}
        assert served.request(feed, "PUT", "Observation/adult-hemoglobin", body=body).status == 200
    assert served.request(feed, "PUT", "Observation/gone", body={**hemoglobin, "id": "gone"}).status == 201
    assert served.request(feed, "DELETE", "Observation/gone").status == 204
    assert served.request(feed, "PUT", "Observation/again", body={**hemoglobin, "id": "again"}).status == 201
    assert served.request(feed, "DELETE", "Observation/again").status == 204
    assert served.request(feed, "PUT", "Observation/again", body={**hemoglobin, "id": "again"}).status == 201
    served.close()
    yield url


def answers(served: Served, tokens: list[str]) -> Iterator[Answer]:
    for token in tokens:
        for path in ASKED:
            yield from paged(served, token, path)


def paged(served: Served, token: str, path: str | None) -> Iterator[Answer]:
    """Return the response and all further pages."""
    while path is not None:
        answer = served.get(token, path)
        yield answer
        path = next((one["url"] for one in answer.json.get("link", []) if one["relation"] == "next"), None)


def comparable(answer: Answer) -> tuple[int, Any, bytes]:
    """Return what must be equal: status, headers and body."""
    return answer.status, answer.headers, answer.body


def test_copied_store_returns_the_same_responses(source: str) -> None:
    target = fresh_url()
    found = asyncio.run(copy_store(source, target, ignore_progress))
    assert found.counts["versions"] > found.counts["resources"] > 100
    assert min(found.counts[sort] for sort in ("classes", "key-value records", "log lines")) > 5
    before = Served(source, seeds=False)
    users = ("adult", "proxy-full", "clinician")
    tokens = [before.token(), *(before.app_token(user, "adult", "patient/*.rs" if user != "clinician" else "user/*.rs") for user in users)]
    assert asyncio.run(_again(source, target)) is not None  # the tokens just issued need another copy
    old = [comparable(answer) for answer in answers(before, tokens)]
    before.close()
    moved = fresh_url()
    asyncio.run(copy_store(source, moved, ignore_progress))
    after = Served(moved, seeds=False)
    new = [comparable(answer) for answer in answers(after, tokens)]
    assert len(old) > 60 and {status for status, _, _ in old} == {200, 410}
    assert new == old
    changed = {**after.get(tokens[0], "Observation/again").json, "status": "amended"}
    assert after.request(tokens[0], "PUT", "Observation/again", body=changed).status == 200
    assert after.get(tokens[0], "Observation/again/_history").json["total"] == 4
    after.close()


def test_copied_store_answers_every_scenario_byte_for_byte(tmp_path: Path) -> None:
    url, target = f"sqlite:///{tmp_path / 'fhir.sqlite'}", fresh_url()
    before = seeded(url, audit="batched")
    walks = [Scenario(path, before) for path in FILES]
    old = [comparable(answer) for walk in walks for answer in walked(before, walk)]
    before.close()
    asyncio.run(copy_store(url, target, ignore_progress))
    after = Served(target, seeds=False, audit="batched")
    new = [comparable(answer) for walk in walks for answer in walked(after, walk)]
    after.close()
    assert new == old
    statuses = [status for status, _, _ in old]
    assert statuses.count(200) > 500 and statuses.count(404) > 300


def walked(served: Served, scenario: Scenario) -> Iterator[Answer]:
    """Read every row of a scenario, search every type of it, and request $everything."""
    for type, id, _ in scenario.rows():
        yield served.get(scenario.token, f"{type}/{id}")
    for type in scenario.types:
        yield from paged(served, scenario.token, f"{type}?_count=20")
    yield from paged(served, scenario.token, f"Patient/{scenario.patient}/$everything?_count=50")


async def _again(source: str, target: str) -> str | None:
    """Return the error of a copy into a completed copy, or None."""
    try:
        await copy_store(source, target, ignore_progress)
    except ValueError as error:
        return str(error)
    return None


def test_interrupted_copy_is_refused_until_resumed_and_complete(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = fresh_url()
    right = _MongoCopySide.put_histories
    taken: list[int] = []

    async def breaking(self: _MongoCopySide, lives: Any) -> None:
        if len(taken) == 1:
            raise OSError("the cable")
        taken.append(len(lives))
        await right(self, lives)

    monkeypatch.setattr("fhir_server.maintenance.copy_store._PAGE", 40)
    monkeypatch.setattr(copying._MongoCopySide, "put_histories", breaking)
    with pytest.raises(OSError, match="the cable"):
        asyncio.run(copy_store(source, target, ignore_progress))
    with pytest.raises(ValueError, match="not complete"):
        asyncio.run(_prepared(target))
    seen: list[int] = []

    async def counting(self: _MongoCopySide, lives: Any) -> None:
        seen.append(len(lives))
        await right(self, lives)

    monkeypatch.setattr(copying._MongoCopySide, "put_histories", counting)
    found = asyncio.run(copy_store(source, target, ignore_progress))
    assert taken == [40] and sum(seen) + 40 == found.counts["resources"]
    asyncio.run(_prepared(target))


def test_killed_copy_resumes_where_it_stopped(source: str) -> None:
    target = fresh_url()
    environment = os.environ | {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_SECRET_KEY": KEY}
    child = subprocess.run([sys.executable, "-c", KILLED, "copy-store", source, target], cwd=ROOT, env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    with MongoClient[dict[str, Any]](target) as client:
        kept = client.get_default_database()["resources"].estimated_document_count()
    assert kept >= 30
    with pytest.raises(ValueError, match="not complete"):
        asyncio.run(_prepared(target))
    reported: list[tuple[str, int, int]] = []
    found = asyncio.run(copy_store(source, target, lambda *how_far: reported.append(how_far)))
    furthest = {what: done for what, done, _ in reported}
    assert kept < furthest["Resources"] <= found.counts["resources"] + 3  # the page in progress may be copied twice
    assert reported[0][0] == "Resources" and reported[0][1] > kept
    assert furthest["Checking the copy"] == found.counts["resources"]
    assert found == asyncio.run(copy_store(source, fresh_url(), ignore_progress))
    asyncio.run(_prepared(target))


@pytest.mark.parametrize("how", ELECTION)
def test_copy_continues_through_elections(source: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.maintenance.copy_store._PAGE", 40)
    members = failing_set()
    try:
        commands = ("find", "insert", "update", "delete", "aggregate", "distinct", "count")
        with failing(members, {"activationProbability": 0.15}, commands, how) as failure:
            found = asyncio.run(copy_store(source, url_of(members, "fhir"), ignore_progress))
    finally:
        members.stop()
    assert failure.struck > 0
    assert found.counts["resources"] > 100


async def _prepared(url: str) -> None:
    store = open_store(url)
    try:
        await store.prepare()
    finally:
        await store.close()


@pytest.mark.parametrize("sort", ["resources", "history", "secrets", "journal"])
def test_copy_that_differs_from_its_source_is_rejected(source: str, sort: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = _MongoCopySide.key_values

    async def spoiling(self: _MongoCopySide, after: tuple[str, str], limit: int) -> Any:
        collection = self._connection.database[sort]
        one = await collection.find_one({})
        assert one is not None
        await collection.update_one({"_id": one["_id"]}, {"$set": {"updated": 1, "value": b"x", "line": b"x"}})
        return await right(self, after, limit)

    async def asked(self: _MongoCopySide) -> tuple[str, ...]:
        await spoiling(self, ("", ""), 1)
        return await classes(self)

    classes = _MongoCopySide.classes
    monkeypatch.setattr(_MongoCopySide, "classes", asked)  # the comparison calls this method first
    with pytest.raises(ValueError, match="differs from its source"):
        asyncio.run(copy_store(source, fresh_url(), ignore_progress))


def test_nonempty_target_store_is_not_overwritten(source: str) -> None:
    target = fresh_url()

    async def filled() -> None:
        store = open_store(target)
        await put(store, record("mine"))
        await store.close()

    asyncio.run(filled())
    with pytest.raises(ValueError, match="is not empty"):
        asyncio.run(copy_store(source, target, ignore_progress))


def test_mongodb_can_be_the_copy_source(source: str) -> None:
    first, second = fresh_url(), fresh_url()
    assert asyncio.run(copy_store(source, first, ignore_progress)) == asyncio.run(copy_store(first, second, ignore_progress))


def test_copy_store_command_reports_results_and_errors(source: str, tmp_path: Path) -> None:
    environment = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_SECRET_KEY": KEY}
    done = CliRunner().invoke(main, ["copy-store", source, fresh_url()], env=environment)
    assert done.exit_code == 0 and "Copied and compared: " in done.output and "digest" in done.output, done.output
    refused = CliRunner().invoke(main, ["copy-store", source, f"sqlite:///{tmp_path / 'other.sqlite'}"], env=environment)
    assert refused.exit_code == 1 and "cannot be the target" in refused.output


def test_audit_lines_of_a_killed_server_are_copied(tmp_path: Path) -> None:
    """They are beside the source; those of a running server would be missing from the copy for ever."""
    path, target = tmp_path / "fhir.sqlite", fresh_url()
    make_store(f"sqlite:///{path}")
    left = BufferFile(path, ChainKeys(KEY))
    left.add([LogEntry(b'{"event":{"agent":[{"altId":"waits"}]}}')], 0)
    environment = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_SECRET_KEY": KEY}
    refused = CliRunner().invoke(main, ["copy-store", f"sqlite:///{path}", target], env=environment)
    assert refused.exit_code == 1 and "is using the source" in refused.output
    left.close()  # as the end of its process does
    done = CliRunner().invoke(main, ["copy-store", f"sqlite:///{path}", target], env=environment)
    assert done.exit_code == 0 and buffer_files(path) == []

    async def lines() -> list[tuple[int, bytes]]:
        store = open_store(target)
        try:
            return list(await store.read_log(LOG_NAME))
        finally:
            await store.close()

    assert b"waits" in b"".join(line for _, line in asyncio.run(lines()))
