"""Each feature of tests/conformance/features.yaml has a request that shows it, or tests that exist, or a reason why it is not served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.conformance import features, report
from tests.conformance.features import Feature
from tests.seeded import seeded
from tests.served import Answer, Served

ABOUT: Final = {"status": "final", "subject": {"reference": "Patient/feature"}}
UCUM: Final = "http://unitsofmeasure.org"
CATEGORY: Final = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}


def weight(id: str, value: float, unit: str) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]}
    quantity = {"value": value, "system": UCUM, "code": unit}
    return {"resourceType": "Observation", "id": id, **ABOUT, "code": code, "valueQuantity": quantity}


FEATURE_ROWS: Final[list[dict[str, Any]]] = [
    {
        "resourceType": "Patient", "id": "feature", "gender": "female", "birthDate": "1980-01-02",
        "name": [{"family": "Feature", "given": ["Ada"]}],
        "identifier": [
            {"system": "urn:feature", "value": "1"},
            {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}, "value": "1"},
        ],
    },
    weight("feature-kg", 70, "kg"),
    weight("feature-g", 70000, "g"),
    weight("feature-lb", 155, "[lb_av]"),
    {
        "resourceType": "Observation", "id": "feature-temperature", **ABOUT, "category": [CATEGORY],
        "effectiveDateTime": "2019-03-08T23:30:00-08:00",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8310-5", "display": "Body temperature"}]},
        "valueQuantity": {"value": 98.6, "system": UCUM, "code": "[degF]"},
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">no fever</div>'},
    },
    {"resourceType": "List", "id": "feature", "status": "current", "mode": "working",
     "entry": [{"item": {"reference": "Observation/feature-temperature"}}]},
    {"resourceType": "Location", "id": "feature", "name": "x", "position": {"longitude": -83.69, "latitude": 42.25}},
    {"resourceType": "Basic", "id": "feature", "code": {"text": "x"}},
    {"resourceType": "Questionnaire", "id": "feature", "url": "http://feature.example/q", "version": "1", "title": "Feature",
     "status": "active"},
    {"resourceType": "QuestionnaireResponse", "id": "feature", "questionnaire": "http://feature.example/q|1", "status": "completed"},
    {"resourceType": "Basic", "id": "feature-deleted", "code": {"text": "x"}},
    {
        "resourceType": "Basic", "id": "feature-sourced", "code": {"text": "x"},
        "meta": {"source": "http://feature.example/1", "tag": [{"system": "urn:feature", "code": "t"}]},
        "subject": {"identifier": {"system": "urn:feature", "value": "1"}},
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = seeded()
    token = made.token()
    for row in FEATURE_ROWS:
        answer = made.request(token, "PUT", f"{row['resourceType']}/{row['id']}", body=row)
        assert answer.status == 201, answer.body
    yield made
    made.close()


def asked(served: Served, one: Feature) -> Answer:
    method, _, path = one.request.partition(" ")
    body = one.body.encode() if isinstance(one.body, str) else one.body
    return served.request(served.token(), method, path, body=body, headers=one.headers)


def member(value: Any, path: str) -> Any:
    """The member at a dotted path, whose numbers are those of items; None if there is none."""
    for step in path.split("."):
        known = dict(enumerate(value)) if isinstance(value, list) else value or {}
        value = known.get(int(step) if isinstance(value, list) else step)
    return value


def difference(one: Feature, answer: Answer) -> str:
    """What of an answer is not as the feature says; "" if all is."""
    if answer.status != one.status:
        return f"{answer.status} is not {one.status}: {answer.body[:300]!r}"
    if one.says and one.says not in answer.body.decode():
        return f"{one.says!r} is not in {answer.body[:500]!r}"
    found = [f"{name} is {answer.headers.get(name)}" for name, text in one.header.items() if text not in answer.headers.get(name, "")]
    if one.ids is not None:
        entries = answer.json.get("entry", [])
        ids = sorted(entry["resource"]["id"] for entry in entries if entry.get("search", {}).get("mode") == "match")
        found += [f"the matches are {ids}"] if ids != one.ids else []
    is_text = isinstance(answer.json if one.has else None, dict)
    for path, wanted in one.has.items():
        value = member(answer.json, path) if is_text else None
        is_there = value == wanted or (path.endswith("response.status") and str(value).startswith(str(wanted)))
        found += [] if is_there else [f"{path} is {value!r}"]
    return "; ".join(found)


ASKED: Final = {f"{title}: {one.feature}": one for title, some in features.sections().items() for one in some if one.request}


@pytest.mark.parametrize("name", ASKED)
def test_request_shows_the_feature(served: Served, name: str) -> None:
    assert difference(ASKED[name], asked(served, ASKED[name])) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 201},
        {"has": {"gender": "male"}},
        {"has": {"nothing.0.x": 1}},
        {"header": {"etag": "x"}},
        {"says": "nothing of the kind"},
    ],
)
def test_an_answer_that_is_not_as_said_is_noticed(served: Served, wrong: dict[str, Any]) -> None:
    right = Feature("x", "GET Patient/feature", has={"gender": "female"}, header={"etag": "W/"}, says="Feature")
    answer = asked(served, right)
    assert difference(right, answer) == ""
    assert difference(replace(right, **wrong), answer) != ""
    few = Feature("x", "GET Observation?_id=feature-kg", ids=["feature-kg"])
    assert difference(few, asked(served, few)) == "" and difference(replace(few, ids=[]), asked(served, few)) != ""


def test_every_feature_is_shown_or_explained() -> None:
    tests = {test.id: test.may_skip for test in report.tests()}
    assert features.faults(features.sections(), tests) == []
    names = [one.feature for some in features.sections().values() for one in some]
    assert len(names) > 110
    assert all(one.status >= 400 for some in features.sections().values() for one in some if one.absent and one.request)


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (Feature("x"), "x has neither request nor test nor reason"),
        (Feature("x", tests=("a.py::test_b",)), "x is shown by tests/a.py::test_b, which does not exist"),
        (Feature("x", tests=("a.py::test_c",)), "x is shown by tests/a.py::test_c, which can skip"),
    ],
)
def test_a_feature_without_proof_is_noticed(one: Feature, fault: str) -> None:
    known = {features.TEST: False, "tests/a.py::test_c": True}
    assert features.faults({"t": [one]}, known) == [fault]
    assert features.faults({"t": [Feature("x", "GET x"), Feature("y", absent="z")]}, known) == []
