"""An erased record is gone from every answer and from the store's files; what belongs to others stays, and the report says so."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient

from fhir_server.maintenance import erase as erasing
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.served import Served

FAMILY = "Unmistakable-Surname"


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    operator = new_operator(str(request.param), tmp_path, monkeypatch)
    operator.must("create-store")
    return operator


def observation(patient: str, text: str) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    value = {"value": 1, "unit": "g/dL"}
    subject = {"reference": f"Patient/{patient}"}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        "subject": subject,
        "valueQuantity": value,
        "note": [{"text": text}],
    }


def filled(operator: Operator) -> tuple[Served, str]:
    """Two patients; the first has rows with versions, a deleted row, and an appointment together with the second."""
    served = Served(operator.url, seeds=False)
    token = served.token()

    def put(name: str, body: dict[str, Any]) -> None:
        type, _, id = name.partition("/")
        answer = served.request(token, "PUT", name, body={"resourceType": type, "id": id, **body})
        assert answer.status in (200, 201), answer.json

    for id, family in (("first", FAMILY), ("second", "Other")):
        put(f"Patient/{id}", {"name": [{"family": family}], "birthDate": "1980-01-01"})
    for text in (f"{FAMILY} one", f"{FAMILY} two", "three"):
        put("Observation/a", observation("first", text))
    put("Observation/gone", observation("first", f"{FAMILY} gone"))
    assert served.request(token, "DELETE", "Observation/gone").status == 204
    put("Observation/b", observation("second", "other"))
    both = [{"actor": {"reference": f"Patient/{id}"}, "status": "accepted"} for id in ("first", "second")]
    put("Appointment/both", {"status": "booked", "participant": both, "start": "2026-11-21T09:00:00Z", "end": "2026-11-21T10:00:00Z"})
    return served, token


def stored_text(url: str) -> bytes:
    """Everything that the store has, as bytes: of SQLite the files with their unused parts."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        return b"".join(repr(document).encode() for name in database.list_collection_names() for document in database[name].find())


def test_erased_record_is_gone_from_answers_and_files(operator: Operator, tmp_path: Path) -> None:
    served, token = filled(operator)
    others = [served.get(token, path).body for path in ("Patient/second", "Observation/b", "Observation/b/_history")]
    served.close()
    assert FAMILY.encode() in stored_text(operator.url)
    report = tmp_path / "report.json"
    shown = operator.must("erase", "Patient/first", "--reason", "order 7", "--report", str(report), "--yes")
    assert "3 resources were erased" in shown
    assert FAMILY.encode() not in stored_text(operator.url)
    served = Served(operator.url, seeds=False)
    for name in ("Patient/first", "Observation/a", "Observation/gone"):
        never = name.partition("/")[0] + "/never"
        for rest in ("", "/_history", "/_history/1"):
            answer, expected = served.get(token, name + rest), served.get(token, never + rest)
            assert answer.status == 404 and answer.body == expected.body.replace(never.encode(), name.encode()), name + rest
    assert served.get(token, "Observation?subject=Patient/first").json["total"] == 0
    assert served.get(token, f"Patient?family={FAMILY}").json["total"] == 0
    assert [served.get(token, path).body for path in ("Patient/second", "Observation/b", "Observation/b/_history")] == others
    assert served.get(token, "Appointment/both").status == 200
    assert served.request(token, "PUT", "Observation/new", body={**observation("first", "x"), "id": "new"}).status == 422
    served.close()
    assert operator.sentences()["integrity"] == "no damage found"


def test_report_says_what_was_erased_and_what_remains(operator: Operator, tmp_path: Path) -> None:
    served, _ = filled(operator)
    served.close()
    report = tmp_path / "report.json"
    operator.must("user", "add", "first-user", "--role", "patient", "--patient", "first", "--password", "A-long-pass-2026")
    operator.must("erase", "Patient/first", "--reason", "order 7", "--report", str(report), "--yes")
    assert report.stat().st_mode & 0o777 == 0o600
    said = json.loads(report.read_bytes())
    assert {one["resource"]: one["versions"] for one in said["erased"]} == {"Patient/first": 1, "Observation/a": 3, "Observation/gone": 2}
    assert said["counts"] == {"Patient": 1, "Observation": 2} and said["verified"] and said["reason"] == "order 7"
    assert said["shared_with_others"] == ["Appointment/both"] and said["accounts"] == ["first-user"]
    assert said["audit_lines"] > 0 and said["remains"][0].startswith("Backups")
    assert said["digest"] == sha256(json.dumps(said["erased"], separators=(",", ":")).encode()).hexdigest()
    assert FAMILY not in report.read_text()
    line = operator.must("journal").splitlines()[-2]  # before the line about this reading
    assert '"erase-record"' in line and said["digest"] in line and "Patient/first" in line and FAMILY not in line


def test_interrupted_erasure_hides_the_record_and_continues(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, token = filled(operator)
    served.close()
    monkeypatch.setattr(erasing, "_BATCH", 1)
    right, calls = erasing._erase, []

    async def breaking(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise OSError("the power")
        return await right(*given)

    monkeypatch.setattr(erasing, "_erase", breaking)
    command = ("erase", "Patient/first", "--reason", "order 7", "--yes", "--report")
    assert operator.run(*command, str(tmp_path / "one")).exit_code == 1
    served = Served(operator.url, seeds=False)
    assert served.get(token, "Patient/first").status == 404
    assert served.get(token, "Observation/a").status == 200  # a backend with clearance for everything
    served.close()
    operator.must(*command, str(tmp_path / "two"))
    assert msgspec.json.decode((tmp_path / "two").read_bytes())["counts"] == {"Observation": 2}


def test_unknown_patient_and_existing_report_are_refused(operator: Operator, tmp_path: Path) -> None:
    served, _ = filled(operator)
    served.close()
    report = tmp_path / "report"
    shown = operator.run("erase", "Patient/nobody", "--reason", "x", "--report", str(report), "--yes")
    assert shown.exit_code == 1 and "nothing that belongs" in shown.output and not report.exists()
    assert operator.run("erase", "Observation/a", "--reason", "x", "--report", str(report), "--yes").exit_code == 1
    report.touch()
    assert "exists already" in operator.run("erase", "Patient/first", "--reason", "x", "--report", str(report), "--yes").output
    assert operator.run("erase", "Patient/first", "--reason", "x", "--report", str(tmp_path / "other")).exit_code == 1  # not confirmed
    served = Served(operator.url, seeds=False)
    assert served.get(served.token(), "Patient/first").status == 200
    served.close()
