"""``fhir-server codes``: import with its gate and audit event, the report of unknown codes, and a clinic's feed before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fhir_server.cli import main
from fhir_server.maintenance.relabel import relabel_store
from fhir_server.maintenance.unclassified import unclassified_codes
from tests.maintenance import made_up_feed
from tests.seeded import seeded
from tests.served import Served, make_store, store_url

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = {"FHIR_SERVER_STORE": f"sqlite:///{tmp_path}/s.sqlite", "FHIR_SERVER_MODE": "test", "FHIR_SERVER_CODES_PATH": ""}
    make_store(environment["FHIR_SERVER_STORE"])
    environment["FHIR_SERVER_CODES_PATH"] = str(tmp_path / "own")

    def invoked(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=environment | more, catch_exceptions=False)

    return invoked


HEADER = "system,code,tier,label,source,reviewed,reviewer,clinical_reviewer,display\n"


def test_import_names_refused_rows_and_records_an_audit_event(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "Our visits.csv"
    file.write_text(
        HEADER + "https://clinic.example/v,V1,ordinary,,t,2026-11-29,A,B,\nLOINC,20447-9,ordinary,,t,2026-11-29,A,B,\n", encoding="utf-8"
    )
    done = run("codes", "import", str(file))
    assert done.exit_code == 1
    assert "line 3: '20447-9': a list of sensitive codes has it (HIV)" in done.output
    assert "1 rows imported into 1 lists, 1 refused." in done.output and "fhir-server relabel" in done.output
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["ordinary-our-visits.json"]
    event = json.loads(run("journal").output.splitlines()[0].partition("\t")[2])["event"]
    assert event["subtype"][0]["code"] == "import-codes"
    assert "our-visits" in json.dumps(event["entity"]) and "sha256" in json.dumps(event["entity"])


def test_import_of_a_value_set_needs_its_review(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "labs.json"
    include = [{"system": "http://loinc.org", "concept": [{"code": "99999-9"}, {"code": "63462-6"}]}]
    file.write_text(json.dumps({"resourceType": "ValueSet", "compose": {"include": include}}))
    missing = run("codes", "import", str(file), "--tier", "ordinary")
    assert missing.exit_code == 1 and "--clinical-reviewer" in missing.output
    review = ("--source", "LOINC 2.80", "--reviewed", "2026-11-29", "--reviewer", "A", "--clinical-reviewer", "B")
    done = run("codes", "import", str(file), "--tier", "ordinary", *review)
    assert "line 1: '99999-9': LOINC check digit" in done.output and "1 rows imported" in done.output


def test_import_without_a_folder_is_an_error(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEADER)
    assert "FHIR_SERVER_CODES_PATH" in run("codes", "import", str(file), FHIR_SERVER_CODES_PATH="").output
    assert "--name" in run("codes", "import", str(file), "--name", "x second-signal").output


def test_report_command_prints_codes_by_withheld_resources(run: Run, tmp_path: Path) -> None:
    rows = [one.resource for one in made_up_feed.rows()]
    file = tmp_path / "feed.ndjson"
    teen = {"resourceType": "Patient", "id": "teen", "birthDate": "2012-01-01"}
    file.write_text("\n".join(json.dumps(row) for row in [teen, *rows]))
    (tmp_path / "own").mkdir()
    assert run("load", str(file), "--rejects", str(tmp_path / "r")).exit_code == 0
    lines = run("codes", "report", "--limit", "500").output.splitlines()
    counts = [int(line.split()[0]) for line in lines[1:-1] if "unknown code" not in line]
    assert lines[0].split() == ["withheld", "code"] and counts == sorted(counts, reverse=True) and counts[0] > 1
    assert lines[-1] == f"{len(rows) + 1} resources examined."
    for code in (f"{made_up_feed.VISITS}|V100", f"{made_up_feed.DEPARTMENTS}|D10", f"{made_up_feed.NDC}|00071015500"):
        assert any(code in line for line in lines), code
    assert len(run("codes", "report", "--limit", "5").output.splitlines()) < 20


@pytest.mark.parametrize("kind", ["memory", "sqlite", "mongodb"])
def test_clinics_feed_becomes_usable_with_its_own_lists(kind: str, tmp_path: Path) -> None:
    """Before the import the parent of a teenager sees none of the unknown; after it, the ordinary and nothing sensitive."""
    feed = list(made_up_feed.rows())
    server = seeded(store_url(kind, tmp_path))
    try:
        file = tmp_path / "feed.ndjson"
        file.write_text("\n".join(json.dumps(row.resource) for row in feed))
        assert server.load(file).rejects == []
        shown, wrong = _shares(server, [row for row in feed if row.resource["resourceType"] != "Observation"])
        assert (shown, wrong) == (0, [])
        before = server.run(unclassified_codes(server.parts.store, server.parts.labeler.codes))
        assert len([one for one in before.withheld if one.system == made_up_feed.VISITS]) >= 40
    finally:
        server.close()
    own = tmp_path / "own"
    lists = tmp_path / "clinic.csv"
    lists.write_text(made_up_feed.own_lists())
    environment = {"FHIR_SERVER_STORE": "memory:", "FHIR_SERVER_MODE": "test", "FHIR_SERVER_CODES_PATH": str(own)}
    assert CliRunner().invoke(main, ["codes", "import", str(lists)], env=environment, catch_exceptions=False).exit_code == 0
    server = Served(store_url(kind, tmp_path), seeds=kind != "sqlite", codes_path=str(own))
    try:
        if kind == "sqlite":  # the same store, labeled again
            store, labeler = server.parts.store, server.parts.labeler
            assert server.run(relabel_store(store, labeler, server.settings.base, server.parts.clock())).changed > 100
        else:
            assert server.load(file).rejects == []
        shown, wrong = _shares(server, feed)
        assert wrong == [] and shown >= 95
        after = server.run(unclassified_codes(server.parts.store, server.parts.labeler.codes))
        assert {one.code for one in after.withheld if one.system in (made_up_feed.VISITS, made_up_feed.NDC)} == made_up_feed.UNLISTED
    finally:
        server.close()


def _shares(server: Served, feed: list[made_up_feed.FeedRow]) -> tuple[float, list[str]]:
    """Return the percentage of the truly ordinary that a parent sees, and the truly sensitive that the parent sees."""
    token = server.app_token("parent-a", "teen")
    own = [row for row in feed if row.resource["resourceType"] != "Location"]
    visible = set()
    for type in ("Encounter", "Observation", "MedicationRequest"):
        answer = server.request(token, "GET", f"{type}?_count=1000")
        visible |= {f"{type}/{id}" for id in answer.ids(type)}
    names = {f"{row.resource['resourceType']}/{row.resource['id']}": row.sensitive for row in own}
    ordinary = [name for name, sensitive in names.items() if not sensitive]
    return 100 * len(visible & set(ordinary)) / len(ordinary), [name for name, sensitive in names.items() if sensitive and name in visible]
