"""Loading and exporting files: rejected resources are reported, others stored once, and dates move together."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fhir_server.cli import main
from fhir_server.errors import Problem
from fhir_server.maintenance.export import export_store
from fhir_server.maintenance.input_files import read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.store import Store
from tests.served import Served, make_store

PATIENT = {"resourceType": "Patient", "id": "p", "birthDate": "2012-04-17"}
GOOD = {
    "resourceType": "Observation",
    "id": "good",
    "status": "final",
    "code": {"text": "x"},
    "subject": {"reference": "Patient/p"},
    "effectiveDateTime": "2026-11-20",
}
BAD = {"resourceType": "Observation", "id": "bad", "status": "nonsense", "code": {"text": "x"}}


@pytest.fixture
def empty() -> Iterator[Served]:
    server = Served(seeds=False)
    yield server
    server.close()


def bundle(type: str, *resources: dict[str, Any]) -> dict[str, Any]:
    entry = [
        {"fullUrl": f"http://x/{one['id']}", "resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
        for one in resources
    ]
    return {"resourceType": "Bundle", "type": type, "timestamp": "2026-11-21T00:00:00Z", "entry": entry}


def written(folder: Path, name: str, *values: Any) -> Path:
    path = folder / name
    text = "\n".join(json.dumps(value) for value in values).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def test_transaction_with_invalid_entry_is_rejected_with_reasons(empty: Served, tmp_path: Path) -> None:
    tally = empty.load(written(tmp_path, "one.json", bundle("transaction", PATIENT, GOOD, BAD)))
    reasons = [json.loads(line) for line in tally.rejects]
    assert tally.stored == 0 and [reason["place"] for reason in reasons] == ["entry 2", "entry 0", "entry 1"]
    assert reasons[0]["outcome"]["issue"][0]["expression"] == ["Observation.status"]
    assert "entry 2" in reasons[1]["outcome"]["issue"][0]["diagnostics"]


def test_row_that_was_labelled_since_is_already_present(empty: Served, tmp_path: Path) -> None:
    file = written(tmp_path, "one.json", bundle("transaction", PATIENT, GOOD))
    assert empty.load(file).stored == 2
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "TBOO"}
    body = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"security": [label]}}]}
    assert empty.request(empty.token(), "POST", "Observation/good/$meta-add", body=body).status == 200
    again = empty.load(file)
    assert (again.stored, again.present) == (0, 2)
    changed = written(tmp_path, "two.json", bundle("transaction", GOOD | {"status": "amended"}))
    assert empty.load(changed).stored == 1
    assert empty.get(empty.token(), "Observation/good").json["meta"]["security"] == [label]


@pytest.mark.parametrize("type", ["batch", "collection"])
def test_batch_and_collection_reject_only_invalid_entries(empty: Served, tmp_path: Path, type: str) -> None:
    tally = empty.load(written(tmp_path, "one.json.gz", bundle(type, PATIENT, GOOD, BAD)))
    assert (tally.stored, len(tally.rejects)) == (2, 1)
    assert empty.get(empty.token(), "Observation/good").status == 200


def test_ndjson_loads_in_any_order_and_keeps_ids(empty: Served, tmp_path: Path) -> None:
    tally = empty.load(written(tmp_path, "rows.ndjson.gz", GOOD, BAD, "not a resource", PATIENT))
    assert (tally.stored, len(tally.rejects)) == (2, 2)
    assert empty.all_ids(empty.token(), "Observation?patient=p") == ["good"]
    again = empty.load(tmp_path / "rows.ndjson.gz")
    assert (again.stored, again.present) == (0, 2)
    assert empty.get(empty.token(), "Observation/good").json["meta"]["versionId"] == "1"


def test_changed_resource_loads_as_new_version(empty: Served, tmp_path: Path) -> None:
    empty.load(written(tmp_path, "a.ndjson", PATIENT, GOOD))
    empty.load(written(tmp_path, "b.ndjson", {**GOOD, "status": "amended"}))
    assert empty.get(empty.token(), "Observation/good").json["meta"]["versionId"] == "2"


def test_load_shifts_dates_by_whole_days_and_preserves_ages(empty: Served, tmp_path: Path) -> None:
    empty.load(
        written(
            tmp_path,
            "one.json",
            bundle("transaction", PATIENT, {**GOOD, "issued": "2026-11-20T10:30:00.5-05:00", "note": [{"text": "2026-11-20 stays"}]}),
        ),
        day=date(2027, 1, 2),
    )
    token = empty.token()
    assert empty.get(token, "Patient/p").json["birthDate"] == "2012-05-29"
    observation = empty.get(token, "Observation/good").json
    assert (observation["effectiveDateTime"], observation["issued"]) == ("2027-01-01", "2027-01-01T10:30:00.5-05:00")
    assert observation["note"][0]["text"] == "2026-11-20 stays"


def test_loading_an_export_restores_the_same_resources(tmp_path: Path) -> None:
    source, target = Served(), Served(seeds=False)
    try:
        counts = source.run(export_store(source.parts.store, tmp_path / "out"))
        tally = target.load(tmp_path / "out")
        assert counts["Observation"] > 50 and (tally.stored, tally.rejects) == (sum(counts.values()), [])
        for token, other in ((source.app_token("parent-a", "teen"), target),):
            seen = source.all_ids(token, "Observation?_count=1000")
            again = other.all_ids(other.app_token("parent-a", "teen"), "Observation?_count=1000")
            assert sorted(seen) == sorted(again) and seen
    finally:
        source.close()
        target.close()


def test_load_command_reports_counts_and_skips_loaded_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_SERVER_MODE", "test")
    monkeypatch.setenv("FHIR_SERVER_STORE", f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    make_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    path = written(tmp_path, "rows.ndjson", PATIENT, GOOD, BAD)
    run = CliRunner()
    first = run.invoke(main, ["load", str(path), "--rejects", str(tmp_path / "why.ndjson")])
    assert first.exit_code == 1 and "2 stored, 0 already there, 1 rejected." in first.output
    assert json.loads((tmp_path / "why.ndjson").read_text())["place"] == "line 3"
    again = run.invoke(main, ["load", str(path), "--rejects", str(tmp_path / "why.ndjson")])
    assert "0 stored, 2 already there, 1 rejected." in again.output
    missing = run.invoke(main, ["load", str(tmp_path / "nothing.json")])
    assert missing.exit_code == 2


class Busy:
    """A store that refuses the first ``refusals`` writes because it is busy."""

    def __init__(self, store: Store, refusals: int) -> None:
        self.store, self.refusals = store, refusals

    async def write(self, job: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise Problem("busy", "The server is busy; try again.")
        return await self.store.write(job)


def loaded(server: Served, refusals: int, path: Path) -> tuple[LoadReport, list[float]]:
    """Load a file while the store is busy.  Return the report and the pauses between attempts."""
    tally, pauses = LoadReport(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    store: Any = Busy(server.parts.store, refusals)
    loader = Loader(store, server.parts.labeler, server.settings.base, server.parts.clock, sleep)
    for unit in read_units(path, b"test", None):
        server.run(loader.load(unit, tally))
    return tally, pauses


def test_load_retries_while_the_store_is_busy(empty: Served, tmp_path: Path) -> None:
    tally, pauses = loaded(empty, 3, written(tmp_path, "rows.ndjson", PATIENT, GOOD))
    assert (tally.stored, tally.rejects) == (2, [])
    assert len(pauses) == 3 and pauses == sorted(pauses)


def test_load_fails_when_the_store_stays_busy(empty: Served, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="busy"):
        loaded(empty, 1000, written(tmp_path, "rows.ndjson", PATIENT, GOOD))


def test_busy_store_ends_the_load_command_without_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: Any) -> None:
        raise Problem("busy", "The server is busy; try again.")

    monkeypatch.setenv("FHIR_SERVER_MODE", "test")
    monkeypatch.setenv("FHIR_SERVER_STORE", f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    make_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    monkeypatch.setattr(Loader, "load", busy)
    rejects = tmp_path / "why.ndjson"
    run = CliRunner().invoke(main, ["load", str(written(tmp_path, "rows.ndjson", PATIENT)), "--rejects", str(rejects)])
    assert run.exit_code == 1 and "busy" in run.output and not rejects.exists()


def test_relabel_changes_nothing_when_labels_are_current(tmp_path: Path) -> None:
    from fhir_server.maintenance.relabel import relabel_store

    served = Served()
    try:
        seen, changed = served.run(relabel_store(served.parts.store, served.parts.labeler, served.settings.base, served.parts.clock()))
        assert seen > 300 and changed == 0
    finally:
        served.close()
