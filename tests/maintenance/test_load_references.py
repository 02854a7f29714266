"""References in loaded files lead where R4 says, or the resource is rejected with the reason; a store can be checked for old ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fhir_server.cli import main
from fhir_server.errors import Problem
from fhir_server.maintenance.check_references import unreadable_references
from fhir_server.maintenance.input_files import read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.resources.references import parse_reference
from fhir_server.writing import draft
from tests.served import ROOT, Served, make_store, store_url

EHR = "http://ehr.example/fhir"
URN = "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-000000000001"
DATA = ROOT.parent / "shared/data"


@pytest.fixture(params=["memory:", "sqlite", "mongodb"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    server = Served(store_url(request.param, tmp_path), seeds=False)
    yield server
    server.close()


def observation(id: str, subject: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}, **more}


def practitioner(id: str, *numbers: str) -> dict[str, Any]:
    return {"resourceType": "Practitioner", "id": id, "identifier": [{"system": "urn:test:npi", "value": number} for number in numbers]}


def entry(resource: dict[str, Any], full_url: str = "", method: str = "POST") -> dict[str, Any]:
    url = resource["resourceType"] if method == "POST" else f"{resource['resourceType']}/{resource['id']}"
    return {**({"fullUrl": full_url} if full_url else {}), "resource": resource, "request": {"method": method, "url": url}}


def file(folder: Path, name: str, kind: str, *entries: dict[str, Any]) -> Path:
    """Write a Bundle of these entries; those of a collection have no request (invariant bdl-3)."""
    path = folder / name
    entries = entries if kind != "collection" else tuple({name: one[name] for name in one if name != "request"} for one in entries)
    path.write_text(json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}), encoding="utf-8")
    return path


GOOD = {"fullUrl": URN, "resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}
INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("transaction", {"total": 1}, "bdl-1"),
    ("transaction", {"entry": [GOOD | {"search": {"mode": "match"}}]}, "bdl-2"),
    ("batch", {"entry": [{"resource": {"resourceType": "Patient"}}]}, "bdl-3"),
    ("collection", {"entry": [GOOD]}, "bdl-3"),
    ("transaction", {"entry": [GOOD | {"response": {"status": "200"}}]}, "bdl-4"),
    ("collection", {"entry": [{"fullUrl": URN}]}, "bdl-5"),
    ("batch", {"entry": [GOOD, GOOD]}, "bdl-7"),
    ("transaction", {"entry": [GOOD | {"fullUrl": f"{EHR}/Patient/1/_history/2"}]}, "bdl-8"),
    ("transaction", {"entry": [GOOD | {"request": {"method": "PURGE", "url": "Patient"}}]}, "codes required"),
    ("batch", {"entry": [GOOD | {"request": {"method": "POST"}}]}, "'url' is required"),
    ("batch", {"entry": [None]}, "Expected an object"),
    ("batch", {"entry": {}}, "array"),
    ("batch", {"colour": 1}, "not an element"),
]


def test_refusal_of_a_collection_names_the_entry_and_the_rule(tmp_path: Path) -> None:
    """R4 prohibits requests in Bundles of other types than batch, transaction and history (bdl-3)."""
    path = tmp_path / "one.json"
    entries = [{"resource": {"resourceType": "Patient"}}, GOOD]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}), encoding="utf-8")
    with pytest.raises(Problem) as refusal:
        Served(seeds=False).load(path)
    said = "bdl-3: entry.request mandatory for batch/transaction/history, otherwise prohibited. Entry 1 of this collection has a request."
    assert str(refusal.value) == said
    assert refusal.value.issues[0].expression == ("Bundle.entry[1]",)


def subjects(served: Served) -> list[str]:
    found = served.get(served.token(), "Observation?_count=1000").json.get("entry", [])
    return sorted(one["resource"]["subject"]["reference"] for one in found)


def reasons(report: LoadReport) -> list[str]:
    return [json.loads(line)["outcome"]["issue"][0]["diagnostics"] for line in report.rejects]


@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_relative_references_are_read_against_the_full_url(empty: Served, tmp_path: Path, kind: str) -> None:
    assert empty.request(empty.token(), "PUT", "Patient/p1", body={"resourceType": "Patient", "id": "p1"}).status == 201
    entries = [
        entry({"resourceType": "Patient", "id": "p1"}, f"{EHR}/Patient/p1"),
        entry(observation("1", "Patient/p1"), f"{EHR}/Observation/1"),
        entry(observation("2", "Patient/p2"), f"{EHR}/Observation/2"),
        entry(observation("3", "Patient/p1"), f"{empty.settings.base}/Observation/3"),
    ]
    report = empty.load(file(tmp_path, "one.json", kind, *entries))
    assert (report.stored, report.rejects) == (4, [])
    new = next(id for id in empty.all_ids(empty.token(), "Patient") if id != "p1")
    assert subjects(empty) == sorted([f"Patient/{new}", f"{EHR}/Patient/p2", "Patient/p1"])


def test_bases_of_the_source_count_as_this_server(empty: Served, tmp_path: Path) -> None:
    paths = [
        file(tmp_path, "1.json", "collection", entry({"resourceType": "Patient", "id": "p1"}, f"{EHR}/Patient/p1", "PUT")),
        file(tmp_path, "2.json", "collection", entry(observation("1", "Patient/p1"), f"{EHR}/Observation/1", "PUT")),
    ]
    paths.append(tmp_path / "3.ndjson")
    paths[-1].write_text(json.dumps(observation("2", f"{EHR}/Patient/p1")), encoding="utf-8")
    report = LoadReport()
    loader = Loader(empty.parts.store, empty.parts.labeler, empty.settings.base, empty.parts.clock)
    for path in paths:
        for unit in read_units(path, b"test", None, (EHR,)):
            empty.run(loader.load(unit, report))
    assert (report.stored, subjects(empty)) == (3, ["Patient/p1", "Patient/p1"])


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "ndjson"])
def test_conditional_references_lead_to_the_one_match(empty: Served, tmp_path: Path, kind: str) -> None:
    for one in (practitioner("dr", "1", "both"), practitioner("other", "2", "both")):
        empty.request(empty.token(), "PUT", f"Practitioner/{one['id']}", body=one)
    rows = [
        observation(id, "Patient/p", performer=[{"reference": f"Practitioner?identifier=urn:test:npi|{id}"}])
        for id in ("1", "both", "none")
    ]
    for row in rows:
        path = tmp_path / f"{row['id']}.ndjson"
        if kind == "ndjson":
            path.write_text(json.dumps(row), encoding="utf-8")
        else:
            path = file(
                tmp_path, f"{row['id']}.json", kind, entry(row, "", "PUT"), entry({"resourceType": "Patient", "id": "p"}, "", "PUT")
            )
        report = empty.load(path)
        said = {"1": [], "both": ["several resources"], "none": ["no resource"]}[row["id"]]
        assert [word for word in said if word not in reasons(report)[0]] == [] and bool(report.rejects) is bool(said)
        assert len(report.rejects) == (2 if said and kind == "transaction" else len(said))
        assert report.unresolved == len(said)
    stored = empty.get(empty.token(), "Observation").json["entry"]
    assert [one["resource"]["performer"][0]["reference"] for one in stored] == ["Practitioner/dr"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (URN, "does not resolve"), ("Practitioner?colour=red", "colour"), ("Practitioner?_count=1", "_count"), ("Practitioner?",
        "literal reference"),
        ("/Practitioner/1", "literal reference"), ("Practitioner/1#x", "literal reference"), ("urn:uuid:1", "literal reference"),
    ],
)  # fmt: skip
def test_reference_that_leads_nowhere_is_rejected_with_the_reason(empty: Served, tmp_path: Path, reference: str, said: str) -> None:
    bad = observation("bad", "Patient/p", performer=[{"reference": reference}])
    report = empty.load(
        file(tmp_path, "one.json", "batch", entry(bad, URN.replace("1", "2")), entry({"resourceType": "Patient"}, URN.replace("1", "3")))
    )
    assert report.stored == 1 and len(report.rejects) == 1 and said in reasons(report)[0]
    issue = json.loads(report.rejects[0])["outcome"]["issue"][0]
    assert "expression" not in issue or issue["expression"] == ["Observation.performer[0].reference"]


def test_ambiguous_links_are_rejected_with_their_entry(empty: Served, tmp_path: Path) -> None:
    entries = [
        entry({"resourceType": "Patient", "id": "p1"}), entry(observation("1", "Patient/p1")),
        entry({"resourceType": "Patient"}, URN),
    ]  # fmt: skip
    report = empty.load(file(tmp_path, "one.json", "batch", *entries))
    assert report.stored == 2 and [json.loads(line)["place"] for line in report.rejects] == ["entry 1"]
    assert "may mean" in reasons(report)[0]


@pytest.mark.parametrize(("kind", "change", "key"), INVALID)
def test_bundle_that_breaks_an_invariant_is_refused_whole(tmp_path: Path, kind: str, change: dict[str, Any], key: str) -> None:
    server = Served(seeds=False)
    good = {"resource": {"resourceType": "Patient", "id": "p"}, "request": {"method": "PUT", "url": "Patient/p"}}
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": kind, "entry": [good], **change}), encoding="utf-8")
    with pytest.raises(Problem, match=key):
        server.load(path)
    assert server.get(server.token(), "Patient/p").status == 404
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [good]}), encoding="utf-8")
    assert server.load(path).stored == 1  # the control
    server.close()


def test_command_resolves_references_to_files_that_come_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Synthea's output, whose file of hospitals sorts after the patients."""
    monkeypatch.setenv("FHIR_SERVER_MODE", "test")
    monkeypatch.setenv("FHIR_SERVER_STORE", f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    make_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    folder = tmp_path / "files"
    folder.mkdir()
    rows = [observation(id, "Patient/p", performer=[{"reference": f"Practitioner?identifier=urn:test:npi|{id}"}]) for id in ("1", "none")]
    for row in rows:
        file(
            folder,
            f"Patient{row['id']}.json",
            "transaction",
            entry({"resourceType": "Patient", "id": "p"}, "", "PUT"),
            entry(row, "", "PUT"),
        )
    file(folder, "practitioners.json", "batch", entry(practitioner("dr", "1"), "", "PUT"))
    rejects = tmp_path / "why.ndjson"
    run = CliRunner().invoke(main, ["load", str(folder), "--rejects", str(rejects), "--from-base", EHR])
    assert "3 stored" in run.output and "2 rejected." in run.output
    assert [json.loads(line)["source"] for line in rejects.read_text().splitlines()] == ["Patientnone.json"] * 2


def test_no_stored_reference_leads_nowhere_after_any_load(tmp_path: Path) -> None:
    """The seeds, a file whose references are a URN and criteria, and the generated records if they are beside the project."""
    performer = {"performer": [{"reference": "Practitioner?identifier=urn:test:npi|1"}]}
    written = file(
        tmp_path,
        "feed.json",
        "transaction",
        entry({"resourceType": "Patient", "id": "p"}, URN),
        entry(observation("o", URN, **performer), "", "PUT"),
    )
    directory = file(tmp_path, "a-directory.json", "batch", entry(practitioner("dr", "1"), "", "PUT"))
    server = Served(store_url("sqlite", tmp_path), seeds=False)
    report = server.load(directory, written, ROOT / "seed_bundles", *sorted((DATA / "synthea").glob("*.json.gz")))
    assert report.rejects == [] and report.stored > 300
    assert server.run(unreadable_references(server.parts.store)) == []
    stored = server.get(server.token(), "Observation/o").json
    assert stored["performer"] == [{"reference": "Practitioner/dr"}] and stored["subject"]["reference"].startswith("Patient/")
    server.close()


@pytest.mark.parametrize("reference", ["/Patient/p", "Patient/p/", "Patient?identifier=1", URN, "Patient/p#x", "Patient\\p"])
def test_doctor_counts_stored_references_that_cannot_be_read(
    empty: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """A store from before the rule: its rows were written when the door took them."""
    good = file(
        tmp_path,
        "good.json",
        "batch",
        entry({"resourceType": "Patient", "id": "p"}, "", "PUT"),
        entry(observation("good", "Patient/p"), "", "PUT"),
    )
    empty.load(good)
    assert empty.run(unreadable_references(empty.parts.store)) == []
    with monkeypatch.context() as patch:
        patch.setattr(draft.validate, "check", lambda *_: ())
        patch.setattr(draft, "_unresolved", lambda *_: [])
        patch.setattr(draft.Draft, "conditional_references", frozenset())
        path = tmp_path / "old.ndjson"
        path.write_text(json.dumps(observation("old", reference)), encoding="utf-8")
        assert empty.load(path).stored == 1
    assert empty.run(unreadable_references(empty.parts.store)) == ["Observation/old"]
    assert (one := parse_reference(reference)) is None or one.kind in ("urn", "conditional")


def test_doctor_reports_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreadable(_: Any) -> list[str]:
        return ["Observation/old", "Observation/older"]

    monkeypatch.setenv("FHIR_SERVER_MODE", "test")
    monkeypatch.setenv("FHIR_SERVER_STORE", f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    make_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    assert "references  all can be read" in CliRunner().invoke(main, ["doctor"]).output
    monkeypatch.setattr("fhir_server.maintenance.examination.unreadable_references", unreadable)
    assert "references  2 resources" in CliRunner().invoke(main, ["doctor"]).output


@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_patches_and_conditional_updates_are_rejected_and_not_stored_as_something_else(empty: Served, tmp_path: Path, kind: str) -> None:
    wrong = (
        {"resource": {"resourceType": "Parameters"}, "request": {"method": "PATCH", "url": "Patient/p"}},
        {"resource": {"resourceType": "Patient", "id": "p"}, "request": {"method": "PUT", "url": "Patient?identifier=x"}},
    )
    for number, one in enumerate(wrong):
        report = empty.load(file(tmp_path, f"{number}.json", kind, one, GOOD))
        assert "cannot be loaded" in reasons(report)[0] and len(report.rejects) == (2 if kind == "transaction" else 1)
    count = empty.get(empty.token(), "Patient?_summary=count").json["total"]
    assert (count, empty.get(empty.token(), "Parameters?_summary=count").json["total"]) == (0 if kind == "transaction" else 2, 0)
