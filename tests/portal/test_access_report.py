"""Who looked at a record: what the API's AuditEvents say, in words, and as CSV."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from fhir_server.portal.record import access_report
from fhir_server.portal.record.access_report import table
from fhir_server.portal.record.looks import Look
from tests.audit.test_audit_event_search import clinician, events
from tests.portal.record_environment import Reader, RecordPages
from tests.portal.test_record_download import secret
from tests.served import Served, micros

HELD = {
    "resourceType": "Observation", "id": "held-result", "status": "final", "subject": {"reference": "Patient/adult"},
    "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "zzheldword"}, "effectiveDateTime": "2026-11-20",
    "valueQuantity": {"value": 13.1, "unit": "g/dL"},
    "extension": [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2027-01-15T00:00:00Z"}],
}  # fmt: skip


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def report(reader: Reader, name: str, query: str = "") -> str:
    """The text of the report, each entry on a line."""
    page = reader.page(f"{reader.address(name)}/access{query}")
    entries = re.findall(r"(?s)<li>\s*(<p class=\"name\">.*?)</li>", page)
    return html.unescape("\n".join(" | ".join(re.sub(r"<[^>]+>", "", entry).split("\n")) for entry in entries))


def rows(reader: Reader, name: str, query: str = "") -> list[list[str]]:
    answer = reader.open(f"{reader.address(name)}/access/file{query}")
    assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
    return list(csv.reader(StringIO(answer.content.decode("utf-8-sig"))))[1:]


def looked(served: Served, path: str) -> None:
    assert served.get(clinician(served), path).status == 200


def test_portal_f23_1_an_adult_sees_that_a_clinician_opened_the_chart(site: RecordPages) -> None:
    reader = site.reader("adult")
    assert "Elena Rivera" not in report(reader, "Alex")
    looked(site.served, "Observation?patient=adult")
    site.served.at(micros("2026-11-21T17:00:59Z"))
    found = next(line for line in report(reader, "Alex").splitlines() if "Elena Rivera" in line)
    assert "Clinic, with the app demo-public" in found and "Purpose: Treatment" in found
    assert "Opened the record, 12:00" in found
    assert any(row[2] == "Elena Rivera" and row[5:7] == ["Opened the record", "Treatment"] for row in rows(reader, "Alex"))


def test_portal_f23_2_a_look_at_a_held_result_shows_no_class_and_no_count(site: RecordPages) -> None:
    """A look that also showed what is open to the patient has one line, whatever else it showed; one at the held result alone has none."""
    site.write(HELD)
    feed, own = site.served.token(), site.served.app_token("adult", "adult")
    assert site.served.get(feed, "Observation/held-result").status == 200 and site.served.get(own, "Observation/held-result").status == 404
    reader = site.reader("adult")
    looked(site.served, "Observation?patient=adult&_count=100")
    found = [line for line in report(reader, "Alex").splitlines() if "Elena Rivera" in line]
    assert len(found) == 1 and "Opened the record, 12:00" in found[0]
    page = reader.page(f"{reader.address('Alex')}/access") + str(rows(reader, "Alex"))
    assert "zzheldword" not in page and "held-result" not in page and "Observation" not in page
    looked(site.served, "Observation/held-result")
    assert [line for line in report(reader, "Alex").splitlines() if "Elena Rivera" in line] == found
    looked(site.served, "Patient/adult")
    assert "Opened the record, 2 times" in report(reader, "Alex")


def test_portal_f23_3_a_parent_sees_own_acts_only_in_both_worlds() -> None:
    seen = []
    for patient in ("teen", "adult"):
        site = RecordPages()
        site.write(secret(1, patient))
        looked(site.served, "Condition/secret-1")
        looked(site.served, "Patient/teen")
        reader = site.reader("parent-a")
        reader.page(f"{reader.address('Toni')}/results")
        other = site.reader("parent-b")
        other.page(f"{next(path for name, path in other.records().items() if 'Charlie' in name or 'Toni' in name)}/results")
        seen.append((report(reader, "Toni"), rows(reader, "Toni"), reader.page(f"{reader.address('Toni')}/access")))
        site.served.close()
    text, listed, page = seen[0]
    assert seen[0] == seen[1] and text and listed
    assert {row[2] for row in listed} == {listed[0][2]} and "Rivera" not in str(seen)
    assert "You see what you did in this record yourself" in page


def test_portal_f23_4_apps_and_whole_downloads_have_their_names(site: RecordPages) -> None:
    reader = site.reader("adult")
    assert site.served.get(site.served.app_token("adult", "adult"), "Patient/adult/$everything").status == 200
    assert reader.open(f"{reader.address('Alex')}/download/file?format=ips").status_code == 200
    proxy = site.reader("proxy-standard")
    proxy.page(f"{proxy.address('Alex')}/results")
    text = report(reader, "Alex")
    assert "with the app demo-public |" in re.sub(" +", " ", text) and "Downloaded the whole record" in text
    assert "Downloaded the patient summary" in text and "Sam Standard" in text and "Family or friend" in text


def test_portal_f23_5_a_day_has_as_many_lines_as_the_api_and_other_days_none(site: RecordPages) -> None:
    looked(site.served, "Observation?patient=adult")
    site.served.at(micros("2026-11-23T15:00:00Z"))
    for _ in range(3):
        looked(site.served, "Patient/adult")
    reader = site.reader("adult")
    days = "?from=2026-11-23&to=2026-11-23"
    expected: list[dict[str, Any]] = events(site.served, site.served.app_token("adult", "adult"), "patient=adult&date=2026-11-23")
    before = rows(reader, "Alex", days)
    assert len(before) == len(expected) + 1 >= 4  # the search of the test itself is a line, too
    assert {row[0] for row in before} == {"2026-11-23"} and rows(reader, "Alex", "?from=2026-11-22&to=2026-11-22") == []
    assert "Nothing is listed for these days" in reader.page(f"{reader.address('Alex')}/access?from=2026-11-22&to=2026-11-22")
    assert "Opened the record, 3 times" in report(reader, "Alex", days)


def test_portal_f23_pages_and_files_that_are_cut_say_so(site: RecordPages, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        looked(site.served, "Patient/adult")
    monkeypatch.setattr(access_report, "_PAGE", 2)
    monkeypatch.setattr(access_report, "FILE", 2)
    reader = site.reader("adult")
    page = reader.page(f"{reader.address('Alex')}/access")
    older = re.findall(r'href="([^"]+)">Earlier entries', page)
    assert older and "Elena Rivera" in reader.page(older[0].replace("&amp;", "&"))
    assert rows(reader, "Alex")[-1] == [access_report._CUT]


def test_portal_f23_wrong_days_get_400_with_words(site: RecordPages) -> None:
    reader = site.reader("adult")
    for page in ("access", "access/file"):
        answer = reader.open(f"{reader.address('Alex')}/{page}?from=2026-02-02&to=2026-02-01")
        assert answer.status_code == 400 and "before the first day" in answer.text
    assert site.reader("parent-a").open(f"{reader.address('Alex')}/access").status_code == 404


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"])
def test_portal_f23_no_cell_of_a_csv_is_a_formula(name: str) -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    text = table([Look(at, name, "Clinic", name, "Opened the record", "", False)])
    row = list(csv.reader(StringIO(text, newline="")))[1]
    assert row[2] == row[4] == f"'{name}" and row[3] == "Clinic" and row[0] == "2026-11-21"
