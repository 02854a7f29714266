"""``audit purge`` on whole stores: the lines are gone from answers and files, and everything else goes on."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path

import pytest

from fhir_server.maintenance.copy_store import copy_store
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.maintenance.test_erase import stored_text
from tests.mongo.shared_mongod import fresh_url
from tests.served import ROOT, Served

EARLY, LATE = "2019-03-01T09:00:00Z", "2025-03-01T09:00:00Z"
SECRET = "Unmistakable-App"
PURGE = ("audit", "purge", "--before", "2020-01-01", "--reason", "six years", "--yes")


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """The operator of a store whose first audit lines are old."""
    operator = new_operator(str(request.param), tmp_path, monkeypatch)
    operator.must("create-store", CLOCK=EARLY)
    served = Served(operator.url, at=EARLY, seeds=False)
    served.load(ROOT / "seed_bundles/00-directory.json", ROOT / "seed_bundles/30-teen.json")
    ask(served, f"-{SECRET}")
    served.at(LATE)
    ask(served)
    served.close()
    return operator


def ask(served: Served, mark: str = "") -> None:
    """Some requests about the teenager, by a system and by a parent."""
    for token in (served.token(), served.app_token("parent-a", "teen", "patient/*.rs")):
        for number in range(3):
            assert served.get(token, f"Observation?patient=teen&_count=2&code=x{number}{mark}").status == 200
            served.get(token, f"Patient/teen?_pretty={number}")


def numbers(operator: Operator) -> list[int]:
    return [int(line.partition("\t")[0]) for line in operator.must("journal").splitlines()]


def hidden(url: str) -> bytes:
    """How the mark stands in a stored line: base64 of the query at some offset."""
    return b64encode(f"Observation?patient=teen&_count=2&code=x0-{SECRET}".encode())[56:76]


def test_purged_lines_are_gone_from_answers_and_files(operator: Operator) -> None:
    def events() -> list[str]:
        served = Served(operator.url, at=LATE, seeds=False)
        officer = served.token("demo-public", "user/*.rs", "privacy-officer")
        found = served.get(officer, "AuditEvent?_count=200").json["entry"]
        of_teen = served.get(officer, "AuditEvent?patient=teen&_count=200").json["entry"]
        served.close()
        return [entry["resource"]["recorded"][:4] for entry in (*found, *of_teen)]

    assert "2019" in events() and hidden(operator.url) in stored_text(operator.url)
    before = numbers(operator)
    shown = operator.must(*PURGE)
    assert "13 lines of the audit log were purged." in shown
    assert set(events()) == {"2025", "2026"} and hidden(operator.url) not in stored_text(operator.url)
    assert numbers(operator)[: len(before) - 13] == before[13:]
    verified = operator.must("audit", "verify")
    assert "chain unbroken; 13 before them were purged" in verified
    assert "13 before them were purged" in operator.sentences()["audit"] and operator.run("doctor").exit_code == 0
    assert "0 lines of the audit log were purged." in operator.must(*PURGE)


def test_purge_is_recorded_with_reason_person_and_extent(operator: Operator) -> None:
    operator.must(*PURGE)
    lines = [json.loads(line.partition("\t")[2]) for line in operator.must("journal").splitlines()]
    (purge,) = [line for line in lines if "purged" in line]
    said = {one["type"]: one["valueString"] for one in purge["event"]["entity"][0]["detail"]}
    assert said["reason"] == "six years" and said["by"] and said["before"].startswith("2020-01-01T0") and said["lines"] == "13"
    assert purge["event"]["subtype"][0]["code"] == "purge-audit"
    assert (purge["purged"]["lines"], purge["purged"]["through"], purge["purged"]["seq"]) == (13, 13, 12)


def test_lines_of_the_legal_minimum_need_a_confirmation(operator: Operator, tmp_path: Path) -> None:
    command = ("audit", "purge", "--before", "2025-06-01", "--reason", "x")
    refused = operator.run(*command, "--yes")
    assert refused.exit_code == 1 and "Lines younger than 2192 days" in refused.output
    assert operator.run(*command, "--below-minimum").exit_code == 1  # not confirmed at the terminal
    assert operator.run(*PURGE[:-1]).exit_code == 1
    assert operator.run(*command, "--yes", AUDIT_MINIMUM_DAYS="700").exit_code == 1
    assert operator.run("audit", "purge", "--before", "soon", "--reason", "x", "--yes").exit_code == 1
    assert min(numbers(operator)) == 1
    assert "25 lines" in operator.must(*command, "--yes", "--below-minimum")
    assert "AUDIT_MINIMUM_DAYS" in operator.run("doctor", AUDIT_DAYS="30").output


def test_archive_of_purged_lines_verifies_offline(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "2019.audit"
    before = operator.must("journal").splitlines()
    operator.must(*PURGE, "--archive", str(path))
    assert path.read_text().splitlines()[:-1] == before[:13]
    elsewhere = {"STORE": "sqlite:////nowhere/at-all.sqlite"}
    digest = operator.must("audit", "verify-archive", str(path), **elsewhere).split("digest ")[1].partition(";")[0]
    assert digest in operator.must("journal")
    assert operator.run("audit", "verify-archive", str(path), SECRET_KEY="another key, which is as long as that").exit_code == 1
    path.write_bytes(path.read_bytes().replace(b"teen", b"else", 1))
    assert operator.run("audit", "verify-archive", str(path), **elsewhere).exit_code == 1
    assert "exists already" in operator.run(*PURGE, "--archive", str(path)).output


def test_archive_that_cannot_be_written_prevents_the_purge(operator: Operator, tmp_path: Path) -> None:
    assert operator.run(*PURGE, "--archive", str(tmp_path / "missing" / "file")).exit_code == 1
    assert min(numbers(operator)) == 1


def test_backup_and_copy_of_a_purged_log_verify(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.must(*PURGE)
    kind = "sqlite" if operator.url.startswith("sqlite") else "mongodb"
    operator.must("backup", str(tmp_path / "copy"))
    restored = new_operator(kind, tmp_path, monkeypatch, "restored")
    restored.must("restore", str(tmp_path / "copy"))
    copied = Operator(fresh_url())
    asyncio.run(copy_store(operator.url, copied.url, lambda what, done, of: None))
    for other in (restored, copied):
        assert "13 before them were purged" in other.must("audit", "verify")
        assert "lines of the audit log were purged" in other.must(*PURGE[:3], "2025-02-01", *PURGE[4:], "--below-minimum")
        other.must("audit", "verify")


def test_purge_with_another_key_changes_nothing(operator: Operator) -> None:
    refused = operator.run(*PURGE, SECRET_KEY="another key, which is as long as that")
    assert refused.exit_code == 1 and "another FHIR_SERVER_SECRET_KEY" in refused.output
    assert min(numbers(operator)) == 1
