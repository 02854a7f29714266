"""Version numbers and times that a caller sees.  Hidden changes do not affect them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served

MINUTE = 60_000_000
DECLASSIFY = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "DECLASSIFYLABEL"}


@pytest.fixture
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


class Row:
    """A resource under test.  Each write by the backend happens one minute later."""

    def __init__(self, served: Served, path: str) -> None:
        self.served, self.path, self.feed = served, path, served.token()

    def write(self, **changes: Any) -> None:
        self.served.at(self.served.parts.clock() + MINUTE)
        body = {name: value for name, value in {**self.served.get(self.feed, self.path).json, **changes}.items() if value is not None}
        assert self.served.request(self.feed, "PUT", self.path, body=body).status == 200

    def known(self, token: str) -> tuple[str, str, list[str]]:
        """Return what a caller sees: the version, its time, and the versions in the history."""
        answer, history = self.served.get(token, self.path), self.served.get(token, f"{self.path}/_history").json
        meta = answer.json["meta"]
        assert re.fullmatch(rf'W/"{meta["versionId"]}(-[0-9a-f]{{16}})?"', answer.headers["etag"])
        return meta["versionId"], meta["lastUpdated"], [entry["resource"]["meta"]["versionId"] for entry in history["entry"]]

    def found_since(self, token: str, instant: str) -> bool:
        type, _, id = self.path.partition("/")
        return id in self.served.get(token, f"{type}?_lastUpdated=gt{instant}&_count=1000".replace("+", "%2B")).ids()


def test_redacted_element_change_does_not_change_the_version(served: Served) -> None:
    visit, parent = Row(served, "Appointment/teen-checkup-upcoming"), served.app_token("parent-a", "teen")
    before = visit.known(parent)
    visit.write(comment="Ask about school.")
    assert visit.known(parent) == before and not visit.found_since(parent, before[1])
    assert visit.known(visit.feed)[0] == "2" and visit.found_since(visit.feed, before[1])
    visit.write(priority=3)
    assert visit.known(parent)[0] == "2" and visit.known(parent)[2] == ["2", "1"]
    assert visit.found_since(parent, before[1]) and visit.known(visit.feed)[0] == "3"


def test_versions_of_another_patient_are_not_counted(served: Served) -> None:
    result, teen, adult = (
        Row(served, "Observation/teen-hemoglobin"),
        served.app_token("parent-a", "teen"),
        served.app_token("adult", "adult"),
    )
    result.write(status="corrected")
    assert result.known(teen)[0] == "2"
    result.write(subject={"reference": "Patient/adult"}, encounter=None)
    assert served.get(teen, result.path).status == 404
    version, time, listed = result.known(adult)
    assert (version, listed) == ("1", ["1"]) and result.known(result.feed)[:2] == ("3", time)
    (entry,) = [one for one in served.get(adult, "Observation/_history").json["entry"] if one["fullUrl"].endswith(result.path)]
    assert entry["request"]["method"] == "POST" and entry["resource"]["meta"]["versionId"] == "1"
    assert [served.get(adult, f"{result.path}/_history/{number}").status for number in (1, 2, 3)] == [200, 404, 404]
    result.write(status="amended")
    assert result.known(adult)[0] == "2" and result.known(adult)[2] == ["2", "1"]
    result.write(subject={"reference": "Patient/teen"})
    assert result.known(teen)[0] == "1" and result.known(teen)[2] == ["1"] and served.get(adult, result.path).status == 404
    listed = [entry["fullUrl"] for entry in served.get(teen, "Observation/_history?_count=100").json["entry"]]
    assert len([url for url in listed if url.endswith(result.path)]) == 1


def test_removal_of_an_element_that_some_do_not_see_is_found_since(served: Served) -> None:
    visit = Row(served, "Appointment/teen-checkup-upcoming")
    visit.write(comment="Ask about school.")
    noted, parent = visit.known(visit.feed), served.app_token("parent-a", "teen")
    before = visit.known(parent)
    visit.write(comment=None)
    assert visit.known(visit.feed)[1] > noted[1] and visit.found_since(visit.feed, noted[1])
    assert visit.known(parent) == before and not visit.found_since(parent, before[1])


@pytest.mark.parametrize(
    ("prefix", "first", "second", "later"),
    [
        ("", False, True, False), ("ne", True, False, True), ("lt", False, False, True), ("le", False, True, True),
        ("eb", False, False, True), ("gt", True, False, False), ("ge", True, True, False), ("sa", True, False, False),
    ],
)  # fmt: skip
def test_last_updated_is_compared_as_it_is_read(served: Served, prefix: str, first: bool, second: bool, later: bool) -> None:
    visit = Row(served, "Appointment/teen-checkup-upcoming")
    was = visit.known(visit.feed)[1]
    visit.write(comment="Ask about school.")  # an element with a time of its own
    now = visit.known(visit.feed)[1]
    for instant, expected in ((was, first), (now, second), ("2030-01-01T00:00:00Z", later)):
        found = served.get(visit.feed, f"Appointment?_id=teen-checkup-upcoming&_lastUpdated={prefix}{instant}".replace("+", "%2B"))
        assert bool(found.ids()) == expected, instant


def test_hidden_version_is_not_counted(served: Served) -> None:
    result, parent = Row(served, "Observation/teen-hemoglobin"), served.app_token("parent-a", "teen")
    before = result.known(parent)
    result.write(status="preliminary")
    assert served.get(parent, result.path).status == 404
    result.write(status="final")
    assert result.known(parent) == before and not result.found_since(parent, before[1])
    result.write(status="corrected")
    assert result.known(parent)[0] == "2" and result.known(result.feed)[0] == "4"


def test_version_outside_the_condition_of_a_scope_is_counted_and_not_shown(served: Served) -> None:
    result = Row(served, "Observation/teen-hemoglobin")
    app = served.app_token("parent-a", "teen", "patient/Observation.rs?category=laboratory")
    category = served.get(result.feed, result.path).json["category"]
    imaging = {"coding": [{**category[0]["coding"][0], "code": "imaging", "display": "Imaging"}]}
    assert result.known(app)[::2] == ("1", ["1"])
    result.write(category=[imaging])
    assert served.get(app, result.path).status == 404
    result.write(category=category)
    version, time, listed = result.known(app)
    assert (version, listed) == ("3", ["3", "1"]) and time == result.known(result.feed)[1]
    answers = [served.get(app, f"{result.path}/_history/{number}").status for number in (1, 2, 3)]
    assert answers == [200, 404, 200]
    assert len(served.get(app, f"Observation?_id=teen-hemoglobin&_lastUpdated={time.replace('+', '%2B')}").ids()) == 1


def test_hidden_reference_does_not_change_the_version(served: Served) -> None:
    result, parent = Row(served, "Observation/teen-hemoglobin"), served.app_token("parent-a", "teen")
    before = result.known(parent)
    result.write(basedOn=None, partOf=[{"reference": "Procedure/teen-throat-culture"}])
    if "partOf" in served.get(parent, result.path).json:
        pytest.fail("the procedure was meant to be out of view")
    assert result.known(parent)[:1] == before[:1] and result.known(parent)[2] == before[2]


def test_hidden_list_item_inserted_first_does_not_change_the_version(served: Served) -> None:
    report, parent = Row(served, "DiagnosticReport/teen-metabolic-panel"), served.app_token("parent-a", "teen")
    before, results = report.known(parent), served.get(report.feed, report.path).json["result"]
    report.write(result=[{"reference": "Observation/teen-gonorrhea"}, *results])
    assert report.known(parent)[0] == before[0] and report.known(report.feed)[0] == "2"


def test_hidden_reference_does_not_change_last_updated(served: Served) -> None:
    result, parent = Row(served, "Observation/teen-hemoglobin"), served.app_token("parent-a", "teen")
    before = result.known(parent)[1]
    result.write(partOf=[{"reference": "Procedure/teen-throat-culture"}])
    assert not result.found_since(parent, before) and result.found_since(result.feed, before)
    result.write(partOf=None)
    assert not result.found_since(parent, before)
    result.write(derivedFrom=[{"reference": "Observation/teen-glucose"}])
    assert result.found_since(parent, before) and result.known(parent)[0] == "2"


def test_later_label_applies_to_all_versions(served: Served) -> None:
    result, parent = Row(served, "Observation/teen-hemoglobin"), served.app_token("parent-a", "teen")
    first = result.known(parent)
    result.write(encounter=None, status="corrected")
    assert result.known(parent)[2] == ["2", "1"]
    moved_to(served, "mental-health-clinic")
    assert result.known(parent)[0] == "1" and result.known(parent)[2] == ["1"]
    assert result.known(parent)[1] > first[1] and result.known(result.feed)[2] == ["2", "1"]
    moved_to(served, "family-medicine-clinic")
    assert result.known(parent)[2] == ["1"]
    moved_to(served, "family-medicine-clinic", meta={"security": [DECLASSIFY]})
    assert result.known(parent)[2] == ["2", "1"]


def test_later_label_applies_to_a_deleted_resource(served: Served) -> None:
    path, feed, parent = "Observation/teen-hemoglobin", served.token(), served.app_token("parent-a", "teen")
    assert served.request(feed, "DELETE", path).status in (200, 204)
    never = served.get(parent, path + "x")
    assert served.get(parent, path).status == 410 and len(served.get(parent, f"{path}/_history").json["entry"]) == 2
    moved_to(served, "mental-health-clinic")
    assert served.get(parent, path).status == served.get(parent, f"{path}/_history").status == never.status == 404
    assert served.get(feed, path).status == 410
    moved_to(served, "family-medicine-clinic")
    assert served.get(parent, path).status == 404
    moved_to(served, "family-medicine-clinic", meta={"security": [DECLASSIFY]})
    assert served.get(parent, path).status == 410


def moved_to(served: Served, place: str, **more: Any) -> None:
    """Change the location of the encounter of the hemoglobin result."""
    Row(served, "Encounter/teen-well-visit").write(location=[{"location": {"reference": f"Location/{place}"}}], **more)
