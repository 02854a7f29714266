"""``purge-history`` and ``purge`` on whole stores: what is gone is gone from answers and files, and nothing else changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fhir_server.maintenance import purge_history as purging
from fhir_server.maintenance.copy_store import copy_store
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.maintenance.test_erase import stored_text
from tests.mongo.shared_mongod import fresh_url
from tests.served import ROOT, Answer, Served

EARLY, MIDDLE, LATE = "2019-03-01T09:00:00Z", "2022-03-01T09:00:00Z", "2025-03-01T09:00:00Z"
PURGE = ("purge-history", "--before", "2021-01-01", "--reason", "rule 3", "--yes")
NAME = "Observation/teen-hemoglobin"


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """The operator of a store with a row of five versions, a deleted row, and one that was deleted and created again."""
    operator = new_operator(str(request.param), tmp_path, monkeypatch)
    operator.must("create-store", CLOCK=EARLY)
    served = Served(operator.url, at=EARLY, seeds=False)
    served.load(ROOT / "seed_bundles/00-directory.json", ROOT / "seed_bundles/30-teen.json")
    row = served.get(served.token(), NAME).json

    def put(name: str, text: str) -> None:
        body = {**row, "id": name.partition("/")[2], "note": [{"text": text}]}
        assert served.request(served.token(), "PUT", name, body=body).status in (200, 201)

    for text in ("Unmistakable one", "Unmistakable two"):
        put(NAME, text)
    for name in ("Observation/gone", "Observation/again"):
        put(name, "Unmistakable three")
        put(name, "kept, because it was deleted")
        assert served.request(served.token(), "DELETE", name).status == 204
    put("Observation/again", "again")
    served.at(MIDDLE)
    put(NAME, "in 2022")
    served.at(LATE)
    put(NAME, "in 2025")
    served.close()
    return operator


def serving(operator: Operator) -> tuple[Served, str]:
    served = Served(operator.url, seeds=False)
    return served, served.token()


def versions_of(answer: Answer) -> list[tuple[str, str]]:
    """(method, number) of the entries of a history."""
    return [(entry["request"]["method"], entry["response"]["etag"].strip('W/"')) for entry in answer.json["entry"]]


def test_purged_versions_are_gone_from_answers_and_files(operator: Operator) -> None:
    served, token = serving(operator)
    rest = [
        served.get(token, path).body for path in (NAME, f"{NAME}/_history/4", f"{NAME}/_history/5", "Observation?patient=teen&_count=200")
    ]
    etag = served.get(token, NAME).headers["etag"]
    never = served.get(token, f"{NAME}/_history/77")
    served.close()
    assert b"Unmistakable" in stored_text(operator.url)
    shown = operator.must(*PURGE)
    assert "earlier versions of" in shown and not shown.startswith("0 ")
    assert b"Unmistakable" not in stored_text(operator.url)
    served, token = serving(operator)
    for number in range(1, 4):
        gone = served.get(token, f"{NAME}/_history/{number}")
        assert (gone.status, gone.body) == (404, never.body.replace(b"/_history/77 ", b"/_history/%d " % number))
    history = served.get(token, f"{NAME}/_history")
    assert versions_of(history) == [("PUT", "5"), ("PUT", "4")] and history.json["total"] == 2
    assert served.get(token, f"{NAME}/_history?_count=1").json["total"] == 2
    paths = (NAME, f"{NAME}/_history/4", f"{NAME}/_history/5", "Observation?patient=teen&_count=200")
    assert [served.get(token, path).body for path in paths] == rest and served.get(token, NAME).headers["etag"] == etag
    assert served.get(token, "Observation/gone").status == 410
    assert versions_of(served.get(token, "Observation/gone/_history")) == [("DELETE", "3")]
    assert versions_of(served.get(token, "Observation/again/_history")) == [("POST", "4")]
    row = served.get(token, NAME).json
    assert served.request(token, "PUT", NAME, body={**row, "status": "amended"}, headers={"if-match": etag}).status == 200
    assert [number for _, number in versions_of(served.get(token, f"{NAME}/_history"))] == ["6", "5", "4"]
    served.close()
    assert operator.run("doctor").exit_code == 0
    assert "0 earlier versions" in operator.must(*PURGE)


def test_relabeling_after_a_purge_changes_no_answer(operator: Operator) -> None:
    operator.must(*PURGE)

    def answers() -> list[tuple[int, Any, bytes]]:
        served, token = serving(operator)
        tokens = [token, served.app_token("parent-a", "teen", "patient/*.rs")]
        paths = (NAME, f"{NAME}/_history", "Observation?patient=teen&_count=200", "Observation/gone/_history", "Patient/teen/$everything")
        found = [served.get(one, path) for one in tokens for path in paths]
        served.close()
        return [(answer.status, answer.headers, answer.body) for answer in found]

    before = answers()
    assert "0 changed" in operator.must("relabel")
    assert answers() == before


def test_interrupted_purge_hides_all_at_once_and_continues(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_STEP", 1)
    exact, steps = purging.keeps_bodies, []

    def breaking(type: str) -> bool:
        steps.append(type)
        if len(steps) > 1:
            raise OSError("the power")
        return exact(type)

    monkeypatch.setattr(purging, "keeps_bodies", breaking)
    assert operator.run(*PURGE).exit_code == 1
    served, token = serving(operator)
    assert [number for _, number in versions_of(served.get(token, f"{NAME}/_history"))] == ["5", "4"]
    assert served.get(token, f"{NAME}/_history/2").status == served.get(token, "Observation/gone/_history/1").status == 404
    served.close()
    assert b"Unmistakable" in stored_text(operator.url)
    monkeypatch.setattr(purging, "keeps_bodies", exact)
    operator.must(*PURGE)
    assert b"Unmistakable" not in stored_text(operator.url)


def test_purge_is_recorded_before_and_after(operator: Operator) -> None:
    operator.must(*PURGE)
    lines = [line for line in operator.must("journal").splitlines() if "purge-history" in line]
    assert len(lines) == 2 and all("rule 3" in line and "2021-01-01T" in line for line in lines)
    assert '"versions"' not in lines[0] and '"versions"' in lines[1]


def test_purge_needs_a_confirmation_and_a_day_in_the_past(operator: Operator) -> None:
    assert operator.run(*PURGE[:-1]).exit_code == 1
    assert "in the future" in operator.run("purge-history", "--before", "2030-01-01", "--reason", "x", "--yes").output
    assert operator.run(*PURGE, SECRET_KEY="another key, which is as long as that").exit_code == 1
    served, token = serving(operator)
    assert len(versions_of(served.get(token, f"{NAME}/_history"))) == 5
    served.close()


def test_backup_and_copy_of_a_purged_store_answer_as_it_does(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.must(*PURGE)

    def histories(one: Operator) -> list[bytes]:
        served, token = serving(one)
        bodies = [served.get(token, f"{name}/_history").body for name in (NAME, "Observation/gone", "Observation/again")]
        served.close()
        return bodies

    before = histories(operator)
    operator.must("backup", str(tmp_path / "copy"))
    restored = new_operator("sqlite" if operator.url.startswith("sqlite") else "mongodb", tmp_path, monkeypatch, "restored")
    restored.must("restore", str(tmp_path / "copy"))
    copied = Operator(fresh_url())
    asyncio.run(copy_store(operator.url, copied.url, lambda what, done, of: None))
    assert histories(restored) == histories(copied) == before
    assert "0 changed" in copied.must("relabel")


def test_retention_follows_the_settings(operator: Operator) -> None:
    assert "so everything is kept" in operator.run("purge").output
    shown = operator.must("purge", HISTORY_DAYS="730", AUDIT_DAYS="2192")
    assert "earlier versions of" in shown and "lines of the audit log were purged" in shown
    served, token = serving(operator)
    assert versions_of(served.get(token, f"{NAME}/_history")) == [("PUT", "5")]
    served.close()
    operator.must("audit", "verify")
    assert "FHIR_SERVER_HISTORY_DAYS=730" in operator.must("journal")
    assert "0 earlier versions" in operator.must("purge", HISTORY_DAYS="730", AUDIT_DAYS="2192", CLOCK="2026-11-21T12:00:01-05:00")
