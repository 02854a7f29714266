"""``Observation/$lastn``: groups by code, order, ties, criteria, pages and what hidden rows do not change."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.interactions import lastn
from tests.filled import served_with
from tests.served import Served

PATH = "Observation/$lastn?patient=lastn-p&category=exam"
EXAM = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "exam"}]}


def coded(*codes: str, text: str | None = None) -> dict[str, Any]:
    codings = {"coding": [{"system": code.partition("|")[0], "code": code.partition("|")[2]} for code in codes]} if codes else {}
    return codings | ({"text": text} if text else {})


def observation(id: str, code: dict[str, Any], time: str | None, patient: str = "lastn-p", **more: Any) -> dict[str, Any]:
    dated = {"effectiveDateTime": time} if time else {}
    return {"resourceType": "Observation", "id": id, "status": "final", "category": [EXAM], "code": code,
            "subject": {"reference": f"Patient/{patient}"}, **dated, **more}  # fmt: skip


ROWS = (
    observation("a-1", coded("s|a"), "2026-01-01"),
    observation("a-2", coded("s|a"), "2026-03-01T10:00:00Z"),
    observation("a-3", coded("s|a", text="other text"), "2026-02-01"),
    observation("b-1", coded("s|b"), "2026-01-05T08:00:00Z"),
    observation("b-tie", coded("s|b"), "2026-01-05T08:00:00Z"),
    observation("b-0", coded("s|b"), "2025-01-05"),
    observation("c-new", coded("s|c"), "2026-05-01"),
    observation("cd", coded("s|c", "t|d"), "2024-01-01"),
    observation("d-old", coded("t|d"), "2026-04-01"),
    observation("other-system", coded("t|a"), "2020-01-01"),
    observation("text-1", coded(text="Heart murmur"), "2026-01-01"),
    observation("text-2", coded(text="Heart murmur"), "2026-01-02"),
    observation("text-3", coded(text="heart murmur"), "2026-01-01"),
    observation("undated-2", coded("s|u"), None),
    observation("undated-1", coded("s|u"), None),
    observation("elsewhere", coded("s|a"), "2026-09-01", "lastn-q"),
)


PATIENTS = tuple({"resourceType": "Patient", "id": id} for id in ("lastn-p", "lastn-q"))
served = served_with(*PATIENTS, *ROWS)


@pytest.fixture
def feed(served: Served) -> str:
    return served.token()


def ids(served: Served, token: str, path: str = PATH) -> list[str]:
    answer = served.get(token, path)
    assert answer.status == 200, answer.body
    assert answer.json["total"] == len(served.all_ids(token, path))
    return answer.ids()


def test_one_of_each_code_and_those_as_new_newest_first(served: Served, feed: str) -> None:
    """c and d are one group, because one Observation has both; b has a tie; texts are compared letter by letter."""
    assert ids(served, feed) == ["c-new", "a-2", "b-1", "b-tie", "text-2", "text-3", "other-system", "undated-1"]


def test_max_is_for_each_group_and_a_tie_is_kept_whole(served: Served, feed: str) -> None:
    assert ids(served, feed, PATH + "&max=2&code=s|a,s|b") == ["a-2", "a-3", "b-1", "b-tie"]
    assert ids(served, feed, PATH + "&max=1&code=s|b") == ["b-1", "b-tie"]
    assert ids(served, feed, PATH + "&max=9&code=s|b") == ["b-1", "b-tie", "b-0"]


def test_translations_make_a_group_only_if_the_search_finds_them(served: Served, feed: str) -> None:
    assert ids(served, feed, PATH + "&date=ge2025&code=s|c,t|d") == ["c-new", "d-old"]
    assert ids(served, feed, PATH + "&code=s|c,t|d") == ["c-new"]
    assert ids(served, feed, PATH + "&code=s|c,t|d&max=3") == ["c-new", "d-old", "cd"]


def test_subjects_are_groups_of_their_own(served: Served, feed: str) -> None:
    both = "Observation/$lastn?subject=Patient/lastn-p,Patient/lastn-q&code=s|a"
    assert ids(served, feed, both) == ["elsewhere", "a-2"]


def test_post_and_pages_answer_as_one_get(served: Served, feed: str) -> None:
    whole = ids(served, feed, PATH + "&max=2")
    assert served.all_ids(feed, PATH + "&max=2&_count=3") == whole
    given = {"patient": "lastn-p", "category": "exam"}
    body = {"resourceType": "Parameters", "parameter": [{"name": "max", "valuePositiveInt": 2}, *(
        {"name": name, "valueString": value} for name, value in given.items())]}  # fmt: skip
    assert served.request(feed, "POST", "Observation/$lastn", body=body).ids() == whole
    entries = [{"request": {"method": "GET", "url": PATH + "&max=2"}}]
    for kind in ("batch", "transaction"):
        answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": entries}).json
        assert [entry["resource"]["id"] for entry in answer["entry"][0]["resource"]["entry"]] == whole
    assert served.get(feed, PATH + "&_summary=count").json == {
        "resourceType": "Bundle", "type": "searchset", "total": 8, "link": [
            {"relation": "self", "url": f"{served.settings.base}/Observation/$lastn?max=1&patient=lastn-p&category=exam&_summary=count"}]
    }  # fmt: skip


def test_includes_and_elements_are_those_of_a_search(served: Served, feed: str) -> None:
    answer = served.get(feed, PATH + "&code=s|a&_include=Observation:subject&_elements=code")
    assert answer.ids() == ["a-2", "lastn-p"] and "effectiveDateTime" not in answer.json["entry"][0]["resource"]


@pytest.mark.parametrize(
    "query",
    [
        "category=exam", "patient=lastn-p", "patient=lastn-p&date=2026", "patient=lastn-p&code:missing=true",
        "patient=lastn-p&code=s|a&max=0", "patient=lastn-p&code=s|a&max=1&max=2", "patient=lastn-p&code=s|a&max=x",
        "patient=lastn-p&code=s|a&_sort=date", "patient=lastn-p&code=s|a&colour=red", "patient=&code=s|a",
    ],
)  # fmt: skip
def test_a_request_that_r4_does_not_allow_is_refused(served: Served, feed: str, query: str) -> None:
    assert served.get(feed, f"Observation/$lastn?{query}").status == 400
    controls = ("patient=lastn-p&code=s|a", "subject:Patient=lastn-p&combo-code=s|a", "patient._id=lastn-p&code-value-concept=s|a$s|b")
    assert {served.get(feed, f"Observation/$lastn?{control}").status for control in controls} == {200}


def test_no_match_is_an_empty_searchset(served: Served, feed: str) -> None:
    for absent in ("patient=lastn-p&code=nothing", "patient=nobody&code=s|a"):
        answer = served.get(feed, f"Observation/$lastn?{absent}")
        assert answer.status == 200 and "entry" not in answer.json and answer.json["total"] == 0


def test_hidden_results_take_no_place_and_join_no_groups(served: Served, feed: str) -> None:
    """The newest result of a code is sensitive, and a sensitive one has two codes: a parent sees what was there before."""
    path, parent = "Observation/$lastn?patient=teen&category=laboratory&max=1", served.app_token("parent-a", "teen")
    before = served.get(parent, path)
    rows = [
        ("lastn-hidden-1", [{"system": "http://loinc.org", "code": "718-7"}], "2026-11-01"),
        ("lastn-hidden-2", [{"system": "http://loinc.org", "code": code} for code in ("718-7", "4548-4", "2160-0")], "2026-11-02"),
    ]
    laboratory = [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}]
    hidden = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    for id, codings, time in rows:
        body = observation(id, {"coding": codings}, time, "teen", meta=hidden) | {"category": laboratory}
        assert served.request(feed, "PUT", f"Observation/{id}", body=body).status == 201
    after = served.get(parent, path)
    assert before.ids() and after.body == before.body
    assert "lastn-hidden-2" in ids(served, feed, path)


def test_more_than_can_be_considered_is_refused_by_visible_rows(served: Served, feed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastn, "MAX_CONSIDERED", 3)
    answer = served.get(feed, PATH + "&code=s|b")
    assert answer.ids() == ["b-1", "b-tie"]
    assert served.get(feed, PATH).json["issue"][0]["code"] == "too-costly"


def test_a_scope_to_search_is_needed(served: Served) -> None:
    assert served.get(served.token(scope="system/Observation.r"), PATH).status == 403
    assert served.get(None, PATH).status == 401
