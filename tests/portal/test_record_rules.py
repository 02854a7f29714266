"""What becomes of a record's pages when the practice withholds a row, and how lists say that there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.portal.record_environment import RecordPages
from tests.portal.test_record_pages import ACT


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def unshare(site: RecordPages, code: str) -> int:
    """A treating clinician labels a problem; the status of the answer."""
    token = site.served.app_token("clinician", "adult", "user/*.cruds")
    problem: dict[str, Any] = site.served.get(token, "Condition/adult-hypertension").json
    problem["meta"]["security"] = [{"system": ACT, "code": code}]
    return site.served.request(token, "PUT", "Condition/adult-hypertension", body=problem).status


def test_portal_f1_6_a_problem_that_a_clinician_withholds_leaves_the_page_and_the_api(site: RecordPages) -> None:
    reader, token = site.reader("adult"), site.served.app_token("adult", "adult")
    path = f"{reader.address('Alex')}/health-issues"
    assert unshare(site, "HIV") in (403, 422), "a label that clinicians may not set is refused, never dropped"
    assert "ypertension" in reader.page(path) and site.served.get(token, "Condition/adult-hypertension").status == 200
    assert unshare(site, "PHY") == 200
    assert "ypertension" not in reader.page(path) and site.served.get(token, "Condition/adult-hypertension").status == 404


def test_portal_f1_7_no_known_allergies_and_an_empty_list_differ_in_words(site: RecordPages) -> None:
    row = site.served.get(site.served.token(), "AllergyIntolerance/adult-penicillin").json
    assert site.served.request(site.served.token(), "DELETE", "AllergyIntolerance/adult-penicillin").status == 204
    reader = site.reader("adult")
    path = f"{reader.address('Alex')}/allergies"
    assert "None recorded." in reader.page(path) and "No known" not in reader.page(path)
    known = {"coding": [{"system": "http://snomed.info/sct", "code": "716186003", "display": "No known allergy"}]}
    site.write({name: value for name, value in row.items() if name not in ("meta", "reaction")} | {"id": "adult-none", "code": known})
    page = reader.page(path).partition("<h2>Past</h2>")[0]
    assert "No known allergy" in page and "None recorded." not in page


def test_portal_f1_7_missed_and_canceled_visits_are_apart(site: RecordPages) -> None:
    for id, status in (("called-off", "cancelled"), ("not-there", "noshow")):
        start = {"start": "2026-11-03T10:00:00Z", "end": "2026-11-03T10:30:00Z", "description": f"zz {id}"}
        people = [{"actor": {"reference": "Patient/adult"}, "status": "accepted"}]
        site.write({"resourceType": "Appointment", "id": id, "status": status, "participant": people, **start})
    reader = site.reader("adult")
    page = reader.page(f"{reader.address('Alex')}/visits")
    canceled, missed = page.partition("<h2>Canceled</h2>")[2].partition("<h2>Missed</h2>")[::2]
    assert "zz called-off" in canceled and "zz not-there" not in canceled
    assert "zz not-there" in missed and "zz called-off" not in missed
