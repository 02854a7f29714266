"""``fhir-server load`` takes Bundles in XML with the checks of those in JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_server.cli.base import main
from fhir_server.fhir_xml import to_xml
from tests.maintenance.test_load import BAD, GOOD, PATIENT, bundle
from tests.served import Served, make_store

_EXACT = {**GOOD, "valueQuantity": {"value": 0}, "note": [{"text": "<&> ä"}]}


@pytest.fixture
def empty() -> Iterator[Served]:
    server = Served(seeds=False)
    yield server
    server.close()


def written(folder: Path, name: str, type: str, *resources: dict[str, object]) -> Path:
    text = to_xml(json.dumps(bundle(type, *resources)).encode()).replace(b'<value value="0"/>', b'<value value="1.50"/>')
    path = folder / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["one.xml", "one.xml.gz"])
def test_a_bundle_in_xml_is_stored_as_the_same_in_json(empty: Served, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, "transaction", PATIENT, _EXACT)
    assert empty.load(tmp_path).stored == 2  # found in its folder
    stored = empty.get(empty.token(), "Observation/good")
    assert b'"value":1.50' in stored.body
    assert {key: value for key, value in stored.json.items() if key not in ("meta", "valueQuantity")} == {
        key: value for key, value in _EXACT.items() if key != "valueQuantity"
    }
    again = empty.load(path)
    assert (again.stored, again.present) == (0, 2)


def test_resources_without_ids_are_stored_once(empty: Served, tmp_path: Path) -> None:
    entry = {"resource": {key: value for key, value in PATIENT.items() if key != "id"}, "request": {"method": "POST", "url": "Patient"}}
    path = tmp_path / "new.xml"
    path.write_bytes(to_xml(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).encode()))
    assert [empty.load(path).stored, empty.load(path).stored] == [1, 0]
    assert len(empty.all_ids(empty.token(), "Patient")) == 1


def test_entries_in_xml_are_validated_one_by_one(empty: Served, tmp_path: Path) -> None:
    tally = empty.load(written(tmp_path, "batch.xml", "batch", PATIENT, GOOD, BAD))
    (reason,) = [json.loads(line) for line in tally.rejects]
    assert tally.stored == 2 and reason["place"] == "entry 2" and reason["outcome"]["issue"][0]["expression"] == ["Observation.status"]


@pytest.mark.parametrize(
    "text",
    [
        b'<Patient xmlns="http://hl7.org/fhir"/>',
        b'<Bundle xmlns="http://hl7.org/fhir"><type value="searchset"/></Bundle>',
        b'<Bundle xmlns="http://hl7.org/fhir"><type value="batch"/>',
        b'<!DOCTYPE x [<!ENTITY e "x">]><Bundle xmlns="http://hl7.org/fhir"><type value="batch"/></Bundle>',
        b'<Bundle xmlns="http://hl7.org/fhir"><colour value="red"/><type value="batch"/></Bundle>',
        b'{"resourceType":"Bundle","type":"batch"}',
    ],
)
def test_what_is_no_bundle_in_xml_is_a_reject_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    url = f"sqlite:///{tmp_path / 'fhir.sqlite'}"
    make_store(url)
    monkeypatch.setenv("FHIR_SERVER_MODE", "test")
    monkeypatch.setenv("FHIR_SERVER_STORE", url)
    monkeypatch.setenv("FHIR_SERVER_SECRET_KEY", "a key that is long enough for this test")
    path, rejects = tmp_path / "bad.xml", tmp_path / "rejects.ndjson"
    path.write_bytes(text)
    result = CliRunner().invoke(main, ["load", str(path), "--rejects", str(rejects)])
    assert result.exit_code == 1 and "0 stored, 0 already there, 1 rejected" in result.output, result.output
    assert json.loads(rejects.read_text())["outcome"]["issue"][0]["diagnostics"]
