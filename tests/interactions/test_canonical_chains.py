"""Chained parameters and ``_has`` by canonical URL: versions are told apart, and only what the caller sees is a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_server.access.view import View
from fhir_server.search import looked_up_steps
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from tests.filled import served_with
from tests.noninterference.resource_factory import restriction
from tests.served import Served

SURVEY = "http://forms.example/Questionnaire/survey"
OTHER = "http://forms.example/Questionnaire/other"
LIBRARY = "http://forms.example/Library/logic"
PARENT = "RelatedPerson/parent-a-of-child"


def _form(id: str, url: str, title: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Questionnaire", "id": id, "url": url, "title": title, "status": "active", **more}


def _answers(id: str, canonical: str, **more: Any) -> dict[str, Any]:
    about = {"status": "completed", "subject": {"reference": "Patient/child"}, **more}
    return {"resourceType": "QuestionnaireResponse", "id": id, "questionnaire": canonical, **about}


def _plan(type: str, id: str, kind: str, *canonicals: str) -> dict[str, Any]:
    related = [{"type": kind, "resource": one} for one in canonicals]
    return {"resourceType": type, "id": id, "status": "active", "relatedArtifact": related, "url": f"http://forms.example/{type}/{id}"}


ROWS = (
    _form("survey-1", SURVEY, "First survey", version="1"), _form("survey-2", SURVEY, "Second survey", version="2"),
    _form("other", OTHER, "Other form"), _form("nameless", "http://forms.example/Questionnaire/unused", "Unused form", version="1"),
    _answers("of-any", SURVEY), _answers("of-1", f"{SURVEY}|1"), _answers("of-2", f"{SURVEY}|2", status="amended"),
    _answers("of-part", f"{SURVEY}|1#page"), _answers("of-part-of-any", f"{SURVEY}#page"), _answers("of-9", f"{SURVEY}|9"),
    _answers("of-other", OTHER), _answers("of-other-9", f"{OTHER}|9"), _answers("of-none", "http://forms.example/Questionnaire/gone"),
    {"resourceType": "Library", "id": "logic", "url": LIBRARY, "version": "3", "name": "Logic", "status": "active",
     "type": {"text": "logic"}},
    _plan("PlanDefinition", "plan", "depends-on", LIBRARY), _plan("PlanDefinition", "cited", "citation", LIBRARY),
    _plan("PlanDefinition", "mixed", "depends-on", f"{LIBRARY}|1", SURVEY), _plan("PlanDefinition", "derived", "derived-from", LIBRARY),
    {"resourceType": "CarePlan", "id": "planned", "status": "active", "intent": "plan", "subject": {"reference": "Patient/child"},
     "instantiatesCanonical": [f"{SURVEY}|2", SURVEY]},
)  # fmt: skip
IDS = {row["id"] for row in ROWS}
served = served_with(*ROWS)

FOUND: list[tuple[str, set[str]]] = [
    ("QuestionnaireResponse?questionnaire.title=first", {"of-any", "of-1", "of-part", "of-part-of-any"}),
    ("QuestionnaireResponse?questionnaire:Questionnaire.title=second", {"of-any", "of-2", "of-part-of-any"}),
    ("QuestionnaireResponse?questionnaire.title=other", {"of-other"}),
    ("QuestionnaireResponse?questionnaire.title=unused", set()),
    ("QuestionnaireResponse?questionnaire.version=2&status=amended", {"of-2"}),
    ("QuestionnaireResponse?questionnaire._id=survey-1", {"of-any", "of-1", "of-part", "of-part-of-any"}),
    ("QuestionnaireResponse?_filter=questionnaire.title co other", {"of-other"}),
    ("QuestionnaireResponse?questionnaire=" + SURVEY, {"of-any", "of-1", "of-2", "of-part", "of-part-of-any", "of-9"}),
    ("QuestionnaireResponse?questionnaire=" + SURVEY + "|1", {"of-1", "of-part"}),
    ("PlanDefinition?depends-on:Library.name=logic", {"plan"}),
    ("PlanDefinition?derived-from:Library.name=logic", {"derived"}),
    ("PlanDefinition?depends-on:Questionnaire.title=first", {"mixed"}),
    ("CarePlan?instantiates-canonical:Questionnaire.title=first", {"planned"}),
    ("CarePlan?instantiates-canonical.title=second", {"planned"}),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:status=amended", {"survey-2"}),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=of-1", {"survey-1"}),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=of-part", {"survey-1"}),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=of-any", {"survey-1", "survey-2"}),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=of-9", set()),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:subject:Patient._id=child", {"survey-1", "survey-2", "other"}),
    ("Library?_has:PlanDefinition:depends-on:_id=mixed", set()),
    ("Library?_has:PlanDefinition:depends-on:_id=plan", {"logic"}),
    ("Patient?_has:QuestionnaireResponse:patient:questionnaire.title=other", {"child"}),
]


@pytest.mark.parametrize(("path", "ids"), FOUND)
def test_caller_who_sees_all_finds_by_canonical_and_version(served: Served, path: str, ids: set[str]) -> None:
    type, _, query = path.partition("?")
    answer = served.get(served.token(), f"{type}?{query.replace(' ', '%20')}&_total=accurate&_count=500")
    assert answer.status == 200, answer.json
    assert set(answer.ids(type)) & {*IDS, "child"} == ids and answer.json["total"] == len(ids)


def test_canonical_resource_that_the_caller_does_not_see_is_no_step(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "child")
    ways = (
        ("QuestionnaireResponse?questionnaire.title=other", {"of-other"}), ("PlanDefinition?depends-on:Library.name=logic", {"plan"}),
        ("Patient?_has:QuestionnaireResponse:patient:questionnaire.title=other", {"child"}),
    )  # fmt: skip
    for path, ids in ways:
        assert set(served.get(parent, path).ids()) == ids, path
    hidden = [restriction("child", PARENT, row) for row in ("Questionnaire/other", "Library/logic")]
    consents = [served.request(feed, "POST", "Consent", body=one).json["id"] for one in hidden]
    for path, ids in ways:
        answer = served.get(parent, path)
        assert answer.status == 200 and answer.ids() == [] and answer.json["total"] == 0, path
        assert set(served.get(feed, path).ids()) == ids, path
    for id in consents:
        assert served.request(feed, "DELETE", f"Consent/{id}").status == 204


def test_response_that_the_caller_does_not_see_selects_no_form(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "child")
    path = "Questionnaire?_has:QuestionnaireResponse:questionnaire:status=amended"
    assert served.get(parent, path).ids() == ["survey-2"]
    hidden = restriction("child", PARENT, "QuestionnaireResponse/of-2")
    id = served.request(feed, "POST", "Consent", body=hidden).json["id"]
    assert served.get(parent, path).json.get("entry", []) == [] and served.get(feed, path).ids() == ["survey-2"]
    assert served.request(feed, "DELETE", f"Consent/{id}").status == 204
    assert served.get(served.app_token("adult", "adult"), path).ids() == []


def test_step_needs_a_search_scope_for_its_type(served: Served) -> None:
    narrow = served.app_token("parent-a", "child", "patient/QuestionnaireResponse.rs")
    assert served.get(narrow, "QuestionnaireResponse?questionnaire.title=other").status == 403
    assert served.get(narrow, "QuestionnaireResponse?questionnaire.title=never").status == 403


def test_step_that_forgets_the_view_would_be_noticed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.app_token("parent-a", "child", "patient/QuestionnaireResponse.rs patient/Questionnaire.rs?_id=survey-1")
    path = "QuestionnaireResponse?questionnaire.title=other"
    assert served.get(token, path).ids() == []
    exact = View._visibility

    def of_no_scope(self: View, type: str, interactions: str) -> Visibility:
        found = exact(self, type, interactions)
        return replace(found, clauses=tuple([replace(clause, where=EVERYTHING) for clause in found.clauses]))

    monkeypatch.setattr(View, "_visibility", of_no_scope)
    assert served.get(token, path).ids() == ["of-other"]


@pytest.mark.parametrize("most", [2, 3])
def test_step_to_too_many_rows_is_refused_by_what_the_caller_sees(served: Served, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(looked_up_steps, "MAX_STEP_ROWS", most)
    title = "Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=of-1,of-2,of-9"
    feed = served.get(served.token(), title)
    assert feed.status == (200 if most == 3 else 400)
    if most == 2:
        assert "more than 2 resources of type QuestionnaireResponse" in feed.json["issue"][0]["diagnostics"]
    assert served.get(served.app_token("adult", "adult"), title).status == 200  # who sees none of them
