"""The operator's commands about the audit log, as the operator runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from click.testing import CliRunner, Result

from fhir_server.cli import main
from tests.served import ROOT, make_store

KEY = "a secret key that is long enough for the server"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    url = f"sqlite:///{tmp_path / 'fhir.sqlite'}"
    make_store(url)
    return {
        "FHIR_SERVER_MODE": "test",
        "FHIR_SERVER_STORE": url,
        "FHIR_SERVER_SECRET_KEY": KEY,
        "FHIR_SERVER_AUDIT_ANCHOR_FILE": str(tmp_path / "anchors"),
    }


def run(environment: dict[str, str], line: str) -> Result:
    return CliRunner().invoke(main, line.split(), env=environment, catch_exceptions=False)


def add_users(environment: dict[str, str], count: int) -> None:
    for number in range(count):
        assert run(environment, f"user add nurse-{number} --role clinician --password A-long-pass-2026").exit_code == 0


def forge(environment: dict[str, str], sql: str) -> None:
    with apsw.Connection(environment["FHIR_SERVER_STORE"].removeprefix("sqlite:///")) as connection:
        connection.execute(sql)


def test_commands_write_one_chain_and_verify_finds_it_whole(environment: dict[str, str]) -> None:
    add_users(environment, 3)
    done = run(environment, "audit verify")
    assert done.exit_code == 0 and "3 lines, chain unbroken" in done.output and "anchors fit" in done.output
    assert "3 lines, chain unbroken" in run(environment, "doctor").output


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM journal WHERE n = 2",
        "DELETE FROM journal WHERE n > 1",
        "DELETE FROM journal",
        "UPDATE journal SET line = CAST(replace(CAST(line AS TEXT), 'nurse-1', 'nurse-2') AS BLOB) WHERE n = 2",
        "DELETE FROM secret WHERE kind = 'log-head'",
    ],
)
def test_verify_and_doctor_find_a_forged_log(environment: dict[str, str], sql: str) -> None:
    add_users(environment, 3)
    forge(environment, sql)
    for command in ("audit verify", "doctor"):
        done = run(environment, command)
        assert done.exit_code == 1 and "not what this server wrote" in done.output


def test_a_command_with_another_key_changes_nothing(environment: dict[str, str]) -> None:
    add_users(environment, 1)
    other = environment | {"FHIR_SERVER_SECRET_KEY": "another key, as long as that of the server"}
    for line in ("organization remove other", "user add other --role clinician --password A-long-pass-2026", "client remove reader"):
        refused = run(other, line)
        assert refused.exit_code == 1 and "another FHIR_SERVER_SECRET_KEY" in refused.output
    assert "other" not in run(environment, "user list").output
    assert run(environment, "audit verify").exit_code == 0 and run(other, "audit verify").exit_code == 1


def test_restart_begins_a_chain_after_a_lost_key(environment: dict[str, str]) -> None:
    add_users(environment, 2)
    other = environment | {"FHIR_SERVER_SECRET_KEY": "another key, as long as that of the server"}
    assert run(other, "audit restart --reason lost").exit_code == 0
    done = run(other, "audit verify --anchors " + environment["FHIR_SERVER_AUDIT_ANCHOR_FILE"])
    assert done.exit_code == 0 and "A new chain begins at line 3" in done.output and "lost" in done.output


def test_anchor_command_prints_a_line_that_verify_accepts(environment: dict[str, str], tmp_path: Path) -> None:
    add_users(environment, 1)
    kept = tmp_path / "kept"
    kept.write_text(run(environment, "audit anchor").output)
    assert "1 anchors fit" in run(environment, f"audit verify --anchors {kept}").output


def test_load_export_relabel_and_journal_are_recorded(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "one.ndjson"
    file.write_text(json.dumps({"resourceType": "Organization", "id": "o", "name": "Clinic"}))
    for line in (f"load {file}", f"export --out {tmp_path / 'out'}", "relabel", "journal"):
        assert run(environment, line).exit_code == 0
    lines = [json.loads(line.partition("\t")[2]) for line in run(environment, "journal").output.splitlines()]
    assert [line["event"]["subtype"][0]["code"] for line in lines] == ["load", "export", "relabel", "read-audit", "read-audit"]


def test_journal_into_a_closed_pipe_ends_without_an_error(environment: dict[str, str]) -> None:
    add_users(environment, 1)
    forge(environment, "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000) "
          "INSERT INTO journal(journal, line) SELECT journal, line FROM journal, c")  # fmt: skip
    command = [sys.executable, "-m", "fhir_server", "journal"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment, cwd=ROOT)
    assert process.stdout and process.stderr
    assert process.stdout.readline().startswith(b"1\t")
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
    process.stderr.close()
