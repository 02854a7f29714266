"""A backup is made while others write, is whole, and is restored to a store that answers as the first one did."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from fhir_server.store import open_store
from fhir_server.store.backup import backups_of, restore_backup, write_backup
from fhir_server.store.mongodb import backup
from tests.maintenance.operator import STORES, Operator, new_operator, teen_record
from tests.served import Answer, Served
from tests.store.samples import record
from tests.waiting import wait_until

ASKED = (
    "Patient/teen", "Observation?patient=teen&_count=7", "Observation?_sort=-date&_count=5", "Patient/teen/_history",
    "Observation/teen-hemoglobin/_history", "Observation/gone", "Encounter?_summary=count", "Patient/teen/$everything",
)  # fmt: skip


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def operator(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return new_operator(kind, tmp_path, monkeypatch)


@pytest.fixture
def elsewhere(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """The operator of the place to restore to."""
    return new_operator(kind, tmp_path, monkeypatch, "restored")


def answers(served: Served, tokens: list[str]) -> list[tuple[int, Any, bytes]]:
    asked: list[Answer] = [served.get(token, path) for token in tokens for path in ASKED]
    return [(answer.status, answer.headers, answer.body) for answer in asked]


def test_restored_store_answers_as_the_first_one_did(operator: Operator, elsewhere: Operator, tmp_path: Path) -> None:
    served = teen_record(operator)
    backend = served.token()
    row = served.get(backend, "Observation/teen-hemoglobin").json
    for text in ("corrected", "again"):
        assert served.request(backend, "PUT", "Observation/teen-hemoglobin", body={**row, "note": [{"text": text}]}).status == 200
    assert served.request(backend, "PUT", "Observation/gone", body={**row, "id": "gone"}).status == 201
    assert served.request(backend, "DELETE", "Observation/gone").status == 204
    tokens = [backend, served.app_token("parent-a", "teen", "patient/*.rs")]
    before = answers(served, tokens)
    assert {status for status, _, _ in before} == {200, 404, 410}
    assert "verified" in operator.must("backup", str(tmp_path / "copy"))
    served.close()
    assert "verified" in elsewhere.must("restore", str(tmp_path / "copy"))
    restored = Served(elsewhere.url, seeds=False)
    assert answers(restored, tokens) == before
    restored.close()
    said = elsewhere.sentences()
    assert elsewhere.run("doctor").exit_code == 0, said
    assert "0 days old" in operator.sentences()["backup"] and operator.run("doctor", "--backup-days", "1").exit_code == 0
    assert operator.run("doctor", "--backup-days", "1", CLOCK="2026-11-24T12:00:00-05:00").exit_code == 1
    assert '"backup"' in operator.must("journal") and '"restore"' in elsewhere.must("journal")


class Writers:
    """Writes pairs of rows, each pair in one transaction, until it is stopped, and keeps what was acknowledged."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()), daemon=True)
        self._thread.start()

    async def _write(self) -> None:
        store = open_store(self.url)
        await store.prepare()
        while not self._stop.is_set():
            number = len(self.acknowledged)

            async def pair(transaction: Any, number: int = number) -> None:
                for half in ("a", "b"):
                    await transaction.put(record(f"pair-{number}-{half}"))

            await store.write(pair)
            self.acknowledged.append(number)
        await store.close()

    def wait(self, more: int) -> None:
        """Wait until ``more`` further pairs are acknowledged."""
        goal = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= goal, "writers write")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


async def pairs_in(url: str) -> dict[int, int]:
    """How many halves of each pair are stored."""
    store = open_store(url)
    await store.prepare()
    found: dict[int, int] = {}

    async def read(transaction: Any) -> None:
        number = missing = 0
        while missing < 20:
            halves = [await transaction.read_unfiltered("Observation", f"pair-{number}-{half}") for half in ("a", "b")]
            if count := sum(half is not None for half in halves):
                found[number] = count
            missing = 0 if count else missing + 1
            number += 1

    await store.write(read)
    await store.close()
    return found


def test_backup_under_writes_has_what_was_acknowledged_before(
    kind: str, operator: Operator, elsewhere: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.must("create-store")
    monkeypatch.setattr(f"fhir_server.store.{kind}.backup.{'_PAGES' if kind == 'sqlite' else '_BATCH'}", 1)
    writers = Writers(operator.url)
    writers.wait(20)
    steps: list[int] = []

    def progress(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) < 6:
            writers.wait(2)  # writers go on during the copy

    async def back_up() -> tuple[int, dict[str, int]]:
        store = open_store(operator.url)
        await store.prepare()
        before = len(writers.acknowledged)
        counts = await write_backup(operator.url, store, tmp_path / "copy", progress)
        await store.close()
        return before, counts

    before, counts = asyncio.run(back_up())
    after = len(writers.acknowledged)
    writers.stop()
    asyncio.run(restore_backup(tmp_path / "copy", elsewhere.url))
    found = asyncio.run(pairs_in(elsewhere.url))
    assert set(found.values()) == {2}, "no transaction is there in part"
    assert set(range(before)) <= found.keys() and len(found) * 2 == counts["resources"]
    assert len(found) < after, "the backup is of the instant at which it began"


def test_file_that_was_changed_is_not_restored(operator: Operator, elsewhere: Operator, tmp_path: Path) -> None:
    teen_record(operator).close()
    copy = tmp_path / "copy"
    operator.must("backup", str(copy))
    data = copy.read_bytes()
    copy.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    assert "SHA-256" in elsewhere.run("restore", str(copy)).output
    copy.write_bytes(data[:-100])
    assert "SHA-256" in elsewhere.run("restore", str(copy)).output
    copy.write_bytes(data)
    digest = tmp_path / "copy.sha256"
    digest.rename(tmp_path / "other")
    assert "digest of the backup cannot be read" in elsewhere.run("restore", str(copy)).output
    assert elsewhere.run("doctor").exit_code == 1  # nothing was made
    (tmp_path / "other").rename(digest)
    elsewhere.must("restore", str(copy))


def test_truncated_file_with_its_own_digest_is_not_restored(kind: str, operator: Operator, elsewhere: Operator, tmp_path: Path) -> None:
    """The digest is not all that is checked: the file must be a whole store."""
    teen_record(operator).close()
    copy = tmp_path / "copy"
    operator.must("backup", str(copy))
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged|no complete backup"):
        asyncio.run(backups_of(operator.url).restore(copy, elsewhere.url))
    assert "There is no store at" in elsewhere.run("doctor").output


def test_restore_replaces_no_store_and_backup_no_file(operator: Operator, tmp_path: Path) -> None:
    teen_record(operator).close()
    copy = tmp_path / "copy"
    operator.must("backup", str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    assert "exists already" in operator.run("backup", str(copy)).output
    assert "There is a store at" in operator.run("restore", str(copy)).output


@pytest.mark.parametrize("kind", ["mongodb"], indirect=True)  # a SQLite file gets its name when it is whole
def test_interrupted_mongodb_restore_is_refused_and_continues(
    operator: Operator, elsewhere: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teen_record(operator).close()
    operator.must("backup", str(tmp_path / "copy"))
    right = backup._batches

    def breaking(documents: Any) -> Any:
        yield from list(right(documents))[:1]
        raise OSError("the power")

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_batches", breaking)
        assert "the power" in elsewhere.run("restore", str(tmp_path / "copy")).output
    for command in ("doctor", "serve"):
        shown = elsewhere.run(command)
        assert shown.exit_code == 1 and "interrupted" in shown.output
    elsewhere.must("restore", str(tmp_path / "copy"))
    assert elsewhere.run("doctor").exit_code == 0
