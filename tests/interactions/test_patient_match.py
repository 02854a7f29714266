"""``Patient/$match``: who may ask, grades and order, what decides them, and that hidden Patients are no candidates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.audit import LOG_NAME
from fhir_server.interactions import match_scores
from fhir_server.resources import validate
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

MRN = "urn:example:mrn"
JANE: dict[str, Any] = {
    "resourceType": "Patient", "identifier": [{"system": MRN, "value": "M-1"}], "gender": "female", "birthDate": "1980-02-03",
    "name": [{"family": "Müller-Lüdenscheidt", "given": ["Jane", "A."]}], "telecom": [{"system": "phone", "value": "+1 555 010 9999"}],
    "address": [{"line": ["1 Main St."], "city": "Springfield", "postalCode": "12345"}],
}  # fmt: skip
ROWS = {
    "same": JANE,
    "twin": JANE | {"identifier": [{"system": MRN, "value": "M-2"}], "name": [{"family": "Müller-Lüdenscheidt", "given": ["Joan"]}]},
    "moved": JANE | {"identifier": [], "telecom": [], "address": []},
    "younger": JANE | {"identifier": [], "birthDate": "2001-05-06"},
    "other": {"resourceType": "Patient", "birthDate": "1980-02-03", "name": [{"family": "Else", "given": ["Some"]}]},
}


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    feed = server.token()
    for id, row in ROWS.items():
        body = {name: value for name, value in row.items() if value != []} | {"id": f"match-{id}"}
        assert server.request(feed, "PUT", f"Patient/match-{id}", body=body).status == 201
    yield server
    server.close()


def ask(served: Served, patient: Any, token: str | None = None, **more: Any) -> Answer:
    body = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient}, *(
        {"name": name, **value} for name, value in more.items())]}  # fmt: skip
    return served.request(served.token() if token is None else token, "POST", "Patient/$match", body=body)


def graded(answer: Answer) -> list[tuple[str, str, float]]:
    assert answer.status == 200, answer.body
    found = [(entry["resource"]["id"], entry["search"]) for entry in answer.json.get("entry", ())]
    assert answer.json["total"] >= len(found)
    return [(id.removeprefix("match-"), search["extension"][0]["valueCode"], search["score"]) for id, search in found]


def test_the_best_match_comes_first_with_score_and_grade(served: Served) -> None:
    answer = ask(served, JANE)
    assert graded(answer) == [
        ("same", "certain", 1), ("twin", "probable", 0.75), ("moved", "probable", 0.65), ("younger", "possible", 0.35)
    ]  # fmt: skip
    assert validate.check("Bundle", jsontext.parse(answer.body)) == ()
    assert graded(ask(served, JANE, count={"valueInteger": 2})) == graded(answer)[:2]


def test_only_certain_matches_is_one_or_none(served: Served) -> None:
    only = {"onlyCertainMatches": {"valueBoolean": True}}
    assert [id for id, *_ in graded(ask(served, JANE, **only))] == ["same"]
    assert graded(ask(served, {name: JANE[name] for name in ("resourceType", "name", "birthDate")}, **only)) == []


def test_names_and_numbers_are_compared_as_people_write_them(served: Served) -> None:
    loose = {"resourceType": "Patient", "birthDate": "1980-02-03", "name": [{"family": "MULLER-LUDENSCHEIDT", "given": ["jane"]}]}
    assert {"same", "moved"} <= {id for id, grade, _ in graded(ask(served, loose)) if grade == "probable"}
    assert match_scores.compare({"telecom": [{"value": "5550109999"}]}, JANE).points == match_scores.TELECOM
    assert match_scores.compare({"telecom": [{"value": "9999"}]}, JANE).points == 0


def test_a_contradiction_is_never_certain() -> None:
    assert match_scores.compare(JANE, JANE | {"gender": "male"}).grade == "probable"
    assert match_scores.compare(JANE, JANE | {"birthDate": "1980-02-04"}).grade != "certain"
    assert match_scores.compare(JANE, JANE | {"birthDate": "1980-02"}).grade == "certain"
    assert match_scores.compare(JANE, JANE) == (100, "certain")


def test_the_patient_may_be_the_body_itself(served: Served) -> None:
    answer = served.request(served.token(), "POST", "Patient/$match?count=1", body=JANE)
    assert [id for id, *_ in graded(answer)] == ["same"]
    entry = {"request": {"method": "POST", "url": "Patient/$match"}, "resource": JANE}
    batch = served.request(served.token(), "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": [entry]}).json
    assert batch["entry"][0]["resource"]["entry"][0]["resource"]["id"] == "match-same"


@pytest.mark.parametrize(
    ("patient", "more"),
    [
        ({"resourceType": "Patient"}, {}), ({"resourceType": "Patient", "name": [{"family": "Else"}]}, {}),
        ({"resourceType": "Practitioner"}, {}), ({"resourceType": "Patient", "gender": "x"}, {}),
        (JANE, {"count": {"valueString": "x"}}), (JANE, {"onlyCertainMatches": {"valueString": "maybe"}}),
        (JANE, {"colour": {"valueString": "red"}}), (None, {}),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_refused(served: Served, patient: Any, more: Any) -> None:
    assert ask(served, patient, **more).status == 400


def test_only_systems_and_staff_may_ask(served: Served) -> None:
    assert ask(served, JANE, served.app_token("adult", "adult")).status == 403
    assert ask(served, JANE, served.app_token("parent-a", "teen")).status == 403
    assert ask(served, JANE, served.token(scope="system/Patient.r")).status == 403
    assert served.request(None, "POST", "Patient/$match", body=JANE).status == 401
    assert ask(served, JANE, served.token("demo-public", "user/*.rs", "clinician")).status == 200
    assert served.get(served.token(), "Patient/$match").status == 405


def test_a_patient_who_is_not_seen_is_no_candidate(served: Served) -> None:
    """A scope shows one of two equal Patients; the other one changes nothing."""
    narrow = served.token(scope=f"system/Patient.rs?identifier={MRN}|M-2")
    assert [id for id, *_ in graded(ask(served, JANE, narrow))] == ["twin"]
    assert graded(ask(served, ROWS["other"], narrow)) == []


def test_the_audit_log_names_those_who_were_returned(served: Served) -> None:
    ask(served, JANE, count={"valueInteger": 1})
    served.run(served.parts.auditor.flush())
    _, line = served.run(served.parts.store.read_log(LOG_NAME))[-1]
    event = str(json.loads(line)["event"]["entity"])
    assert "Patient/match-same" in event and "Patient/match-twin" not in event
