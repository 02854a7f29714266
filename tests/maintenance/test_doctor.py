"""``doctor`` names what is wrong with a store and changes nothing; ``serve`` and other commands refuse what they cannot vouch for."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pymongo import MongoClient

from fhir_server.audit.buffer_file import BufferFile, buffer_files
from fhir_server.audit.chain import ChainKeys
from fhir_server.store import LogEntry, open_store
from tests.maintenance.operator import STORES, Operator, new_operator, teen_record
from tests.served import KEY, ROOT, Served

Run = Callable[..., Result]
SQLITE = pytest.mark.parametrize("operator", ["sqlite"], indirect=True)
MONGODB = pytest.mark.parametrize("operator", ["mongodb"], indirect=True)


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return new_operator(str(request.param), tmp_path, monkeypatch)


@pytest.fixture
def url(operator: Operator) -> str:
    return operator.url


@pytest.fixture
def run(operator: Operator) -> Run:
    """Runs a command on the store; settings can be changed by name."""
    return operator.run


@pytest.fixture
def path(url: str) -> Path:
    """The file of a SQLite store."""
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture
def filled(operator: Operator) -> Iterator[Served]:
    """The store with one patient's record and some audited reads; the server is stopped."""
    served = teen_record(operator)
    token = served.token()
    for _ in range(5):
        assert served.get(token, "Patient/teen").status == 200
    served.close()
    yield served


def sentences(shown: Result) -> dict[str, str]:
    """What doctor says, by subject.  A Python traceback fails the test."""
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    assert "Traceback" not in shown.output
    return {line.split()[0]: line.partition("  ")[2].strip() for line in shown.output.splitlines()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def database(url: str) -> Any:
    return MongoClient[dict[str, Any]](url).get_default_database()


def test_whole_store_passes_and_each_subject_has_a_sentence(filled: Served, run: Run) -> None:
    shown = run("doctor")
    assert shown.exit_code == 0, shown.output
    said = sentences(shown)
    assert list(said) == [
        "policy",
        "integrity",
        "schema",
        "store",
        "key",
        "labels",
        "pending",
        "indexing",
        "audit",
        "references",
        "clock",
        "backup",
    ]
    assert "resources" in said["store"] and "lines, chain unbroken" in said["audit"] and "PROBLEM" not in shown.output


@SQLITE
def test_doctor_leaves_file_and_folder_as_they_are(filled: Served, run: Run, path: Path) -> None:
    before = contents(path.parent)
    path.parent.chmod(0o500)
    try:
        assert run("doctor").exit_code == 0
    finally:
        path.parent.chmod(0o700)
    assert contents(path.parent) == before and list(before) == ["fhir.sqlite"]


def test_doctor_reads_a_store_that_a_server_has_open(url: str, run: Run, filled: Served) -> None:
    served = Served(url, seeds=False)
    token = served.token()
    assert served.get(token, "Patient/teen").status == 200
    assert run("doctor").exit_code == 0
    served.close()


@MONGODB
def test_doctor_sends_mongodb_no_write(filled: Served, url: str, run: Run) -> None:
    with MongoClient[dict[str, Any]](url) as client:
        before = {name: list(client.get_default_database()[name].find()) for name in client.get_default_database().list_collection_names()}
        assert run("doctor").exit_code == 0
        after = {name: list(client.get_default_database()[name].find()) for name in client.get_default_database().list_collection_names()}
    assert after == before and before["resources"]


@pytest.mark.parametrize("command", [("doctor",), ("serve",), ("load", str(ROOT / "seed_bundles")), ("export", "--out", "x"), ("journal",)])
def test_missing_store_is_refused_and_not_made(run: Run, url: str, command: tuple[str, ...]) -> None:
    shown = run(*command)
    assert shown.exit_code == 1 and "There is no store at" in shown.output and "create-store" in shown.output
    if url.startswith("sqlite"):
        assert not Path(url.removeprefix("sqlite:///")).exists()
    else:
        assert database(url).list_collection_names() == []


def test_create_store_makes_a_store_once(run: Run) -> None:
    assert "Made the store" in run("create-store").output
    assert "There already is" in run("create-store").output
    assert run("doctor").exit_code == 0


@SQLITE
def test_empty_file_and_foreign_database_are_refused(run: Run, path: Path) -> None:
    path.touch()
    assert "holds nothing" in run("doctor").output and path.read_bytes() == b""
    path.unlink()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE invoices(n)")
        foreign.execute("PRAGMA user_version = 2")
    foreign.close()
    before = path.read_bytes()
    for command in ("doctor", "serve", "create-store", "relabel"):
        shown = run(command)
        assert shown.exit_code == 1 and "another program" in shown.output, command
    assert path.read_bytes() == before


@MONGODB
def test_foreign_mongodb_database_is_refused(run: Run, url: str) -> None:
    database(url)["invoices"].insert_one({"n": 1})
    for command in ("doctor", "serve", "create-store"):
        assert "another program" in run(command).output
    assert database(url).list_collection_names() == ["invoices"]


def page_size(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[16:18], "big")


def index_page(path: Path) -> int:
    """The offset of a page of an index."""
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tok_value'").fetchall()
    connection.close()
    return (root - 1) * page_size(path)


DAMAGES: dict[str, Callable[[Path, bytes], bytes]] = {
    "zeroed index page": lambda path, data: data[: index_page(path)] + bytes(page_size(path)) + data[index_page(path) + page_size(path) :],
    "early pages": lambda path, data: data[: page_size(path)] + b"\xff" * 8 * page_size(path) + data[9 * page_size(path) :],
    "truncated": lambda path, data: data[: len(data) // 3],
    "truncated to part of a page": lambda path, data: data[:1000],
    "header": lambda path, data: b"no database" + data[11:],
}


@SQLITE
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_a_problem_without_a_traceback(filled: Served, run: Run, path: Path, damage: str) -> None:
    path.write_bytes(DAMAGES[damage](path, path.read_bytes()))
    before = contents(path.parent)
    for command in ("doctor", "serve"):
        shown = run(command)
        assert shown.exit_code == 1 and ("damaged" in shown.output or "not an SQLite database" in shown.output), shown.output
    assert contents(path.parent) == before


@SQLITE
def test_command_on_a_damaged_file_ends_with_a_sentence(filled: Served, run: Run, path: Path, tmp_path: Path) -> None:
    """Each command, not the examination alone: the damage may be where the examination at the start does not look."""
    path.write_bytes(DAMAGES["early pages"](path, path.read_bytes()))
    for command in (
        ("export", "--out", str(tmp_path / "out")),
        ("journal",),
        ("relabel",),
        ("backup", str(tmp_path / "copy")),
    ):
        shown = run(*command)  # an exception that is no message for the operator fails here
        assert shown.exit_code == 1 and shown.output.startswith("Error: "), (command, shown.output)
    assert not (tmp_path / "copy").exists()


def test_later_schema_is_refused(filled: Served, run: Run, url: str) -> None:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("PRAGMA user_version = 1000")
        connection.close()
    else:
        database(url)["counters"].update_one({"_id": "schema"}, {"$set": {"value": 1000}})
    for command in ("doctor", "serve", "export"):
        shown = run(command, *(("--out", "x") if command == "export" else ()))
        assert shown.exit_code == 1 and "later version" in shown.output


@MONGODB
def test_lost_mongodb_index_and_collection_are_damage(filled: Served, run: Run, url: str) -> None:
    database(url)["resources"].drop_index("token_value")
    assert "lacks the indexes token_value" in sentences(run("doctor"))["integrity"]
    assert "is damaged" in run("serve").output
    database(url)["history"].drop()
    assert "history is missing" in sentences(run("doctor"))["integrity"]


def test_other_secret_key_is_a_problem_and_serve_refuses_it(filled: Served, run: Run) -> None:
    other = "another key that is long enough for this test"
    shown = run("doctor", SECRET_KEY=other)
    assert shown.exit_code == 1 and "PROBLEM: FHIR_SERVER_SECRET_KEY is not the key" in shown.output
    shown = run("serve", SECRET_KEY=other)
    assert shown.exit_code == 1 and "FHIR_SERVER_SECRET_KEY is not the key" in shown.output
    assert "is the key of this store" in sentences(run("doctor"))["key"]


def test_key_of_a_store_from_before_the_check_is_told_by_signing_keys(filled: Served, run: Run, url: str) -> None:
    async def forget() -> None:
        store = open_store(url)
        assert await store.key_values.pop("store-fact", "secret-key-check", 0) is not None
        await store.close()

    asyncio.run(forget())
    assert "PROBLEM" in sentences(run("doctor", SECRET_KEY="another key that is long enough for this test"))["key"]
    assert "PROBLEM" not in sentences(run("doctor"))["key"]


def test_new_code_list_makes_labels_stale_until_relabel(filled: Served, run: Run, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    assert run("doctor", CODES_PATH=str(lists)).exit_code == 0
    own = json.loads((ROOT / "ig/valuesets/sensitive-hiv.json").read_bytes())
    (lists / "sensitive-hiv.json").write_text(json.dumps(own))
    shown = run("doctor", CODES_PATH=str(lists))
    assert shown.exit_code == 1 and "PROBLEM" in sentences(shown)["labels"] and "relabel" in sentences(shown)["labels"]
    assert run("relabel", CODES_PATH=str(lists)).exit_code == 0
    assert run("doctor", CODES_PATH=str(lists)).exit_code == 0
    assert "PROBLEM" in sentences(run("doctor"))["labels"]


def test_first_load_after_new_lists_needs_no_relabel(run: Run, tmp_path: Path) -> None:
    """An institution makes the store, imports its lists, and then loads."""
    lists = tmp_path / "lists"
    lists.mkdir()
    assert run("create-store").exit_code == 0
    (lists / "sensitive-hiv.json").write_bytes((ROOT / "ig/valuesets/sensitive-hiv.json").read_bytes())
    directory = str(ROOT / "seed_bundles/00-directory.json")
    assert run("load", directory, CODES_PATH=str(lists)).exit_code == 0
    assert run("doctor", CODES_PATH=str(lists)).exit_code == 0
    (lists / "sensitive-hiv.json").unlink()
    assert run("load", directory, CODES_PATH=str(lists)).exit_code == 0
    assert "PROBLEM" in sentences(run("doctor", CODES_PATH=str(lists)))["labels"]


def test_store_without_a_record_of_its_labeling_is_a_problem(url: str, run: Run) -> None:
    served = Served(url, seeds=False)
    served.load(ROOT / "seed_bundles/00-directory.json")
    served.close()
    assert "not recorded" in sentences(run("doctor"))["labels"]
    assert run("relabel").exit_code == 0
    assert run("doctor").exit_code == 0


def test_clock_behind_the_newest_version_is_a_problem(filled: Served, run: Run) -> None:
    shown = run("doctor", CLOCK="2026-11-21T11:00:00-05:00")
    assert shown.exit_code == 1 and "PROBLEM: The clock is 3600 seconds behind" in shown.output
    assert run("doctor", CLOCK="2026-11-21T11:59:58-05:00").exit_code == 0


def test_changed_audit_line_is_a_problem(filled: Served, run: Run, url: str) -> None:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("DELETE FROM journal WHERE n = 3")
        connection.close()
    else:
        assert database(url)["journal"].delete_one({"n": 3}).deleted_count == 1
    shown = run("doctor")
    assert shown.exit_code == 1 and "PROBLEM" in sentences(shown)["audit"]


@SQLITE
def test_audit_lines_left_by_a_killed_server_are_named(filled: Served, run: Run, path: Path) -> None:
    left = BufferFile(path, ChainKeys(KEY))
    left.add([LogEntry(b'{"event":{"agent":[{}]}}')] * 3, 0)
    left.close()
    shown = run("doctor")
    assert shown.exit_code == 0 and "3 lines of a server that was killed" in sentences(shown)["audit"]
    (file,) = buffer_files(path)
    file.write_bytes(file.read_bytes().replace(b"event", b"tnevE"))
    shown = run("doctor")
    assert shown.exit_code == 1 and "did not write" in sentences(shown)["audit"]


def test_missing_backup_is_a_problem_only_if_asked(filled: Served, run: Run) -> None:
    assert run("doctor").exit_code == 0
    shown = run("doctor", "--backup-days", "7")
    assert shown.exit_code == 1 and "PROBLEM" in sentences(shown)["backup"]


@SQLITE
def test_demo_makes_its_own_store(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fhir-server"])
    assert run("demo", "--prepare-only", MODE="demo").exit_code == 0
    shown = run("doctor", MODE="demo")
    assert shown.exit_code == 0, shown.output
