"""The terminology operations: who may ask, what they see, and what is refused, with every store."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any
from urllib.parse import urlencode

import pytest

from fhir_server.interactions.terminology_capabilities import terminology_capabilities
from fhir_server.interactions.terminology_routes import OPERATIONS
from fhir_server.resources.validate import check
from tests.filled import put
from tests.interactions.terminology_material import ANIMALS, GENDERS, SEX, SYSTEM, V3_SEX, ask, codes, terminology_server, values
from tests.served import Served

served = terminology_server()


REFUSED: tuple[tuple[str, dict[str, Any], int, str], ...] = (
    ("ValueSet/$expand", {"url": "urn:tests:nowhere"}, 404, "not-found"),
    ("ValueSet/nowhere/$expand", {}, 404, "not-found"),
    ("ValueSet/$expand", {"url": "urn:tests:all|9"}, 404, "not-found"),
    ("ValueSet/$expand", {"url": "http://hl7.org/fhir/ValueSet/condition-code"}, 422, "not-supported"),
    ("ValueSet/$expand", {"url": "http://hl7.org/fhir/ValueSet/mimetypes"}, 422, "not-supported"),
    ("ValueSet/$expand", {}, 400, "invalid"),
    ("ValueSet/all/$expand", {"url": "urn:tests:all"}, 400, "invalid"),
    ("ValueSet/$expand", {"url": "urn:tests:all", "count": "many"}, 400, "invalid"),
    ("ValueSet/$expand", {"url": "urn:tests:all", "cuont": 1}, 400, "invalid"),
    ("ValueSet/$expand", {"url": "urn:tests:all", "context": "Patient.gender"}, 400, "not-supported"),
    ("ValueSet/$expand", {"url": "urn:tests:all", "check-system-version": f"{ANIMALS}|2"}, 422, "not-supported"),
    ("CodeSystem/$lookup", {"system": "http://snomed.info/sct", "code": "1"}, 422, "not-supported"),
    ("CodeSystem/$lookup", {"system": ANIMALS, "code": "unicorn"}, 404, "not-found"),
    ("CodeSystem/$lookup", {"code": "dog"}, 400, "invalid"),
    ("CodeSystem/$lookup", {"system": ANIMALS}, 400, "invalid"),
    ("CodeSystem/$lookup", {"system": ANIMALS, "code": "dog", "version": "2"}, 422, "not-supported"),
    ("CodeSystem/$validate-code", {"url": "http://loinc.org", "code": "1"}, 422, "not-supported"),
    ("CodeSystem/$validate-code", {"code": "1"}, 400, "invalid"),
    ("ValueSet/$validate-code", {"url": GENDERS, "code": "male"}, 400, "invalid"),
    ("ValueSet/$validate-code", {"url": "urn:tests:nowhere", "code": "male", "system": SEX}, 404, "not-found"),
    ("CodeSystem/$subsumes", {"system": ANIMALS, "codeA": "dog"}, 400, "invalid"),
    ("CodeSystem/$subsumes", {"system": ANIMALS, "codeA": "dog", "codeB": "unicorn"}, 404, "not-found"),
    ("CodeSystem/$subsumes", {"system": "http://loinc.org", "codeA": "1", "codeB": "2"}, 422, "not-supported"),
    ("ConceptMap/$translate", {"url": "urn:tests:nowhere", "system": ANIMALS, "code": "dog"}, 404, "not-found"),
    ("ConceptMap/$translate", {"url": "urn:tests:map", "code": "dog"}, 400, "invalid"),
    ("ConceptMap/$translate", {"system": ANIMALS, "code": "dog", "reverse": "true"}, 400, "invalid"),
)


@pytest.mark.parametrize(("path", "parameters", "status", "code"), REFUSED)
def test_what_cannot_be_answered_is_refused(served: Served, path: str, parameters: dict[str, Any], status: int, code: str) -> None:
    answer = ask(served, path, **parameters)
    assert (answer.status, [issue["code"] for issue in answer.json["issue"]]) == (status, [code])


def test_a_scope_to_read_the_type_is_needed_and_enough(served: Served) -> None:
    for path, parameters, type in (
        ("ValueSet/$expand", {"url": GENDERS}, "ValueSet"),
        ("ValueSet/$validate-code", {"url": GENDERS, "system": SEX, "code": "male"}, "ValueSet"),
        ("CodeSystem/$lookup", {"system": SEX, "code": "male"}, "CodeSystem"),
        ("CodeSystem/$validate-code", {"url": SEX, "code": "male"}, "CodeSystem"),
        ("CodeSystem/$subsumes", {"system": SEX, "codeA": "male", "codeB": "female"}, "CodeSystem"),
        ("ConceptMap/$translate", {"system": SEX, "code": "male"}, "ConceptMap"),
    ):
        assert ask(served, path, served.app_token("adult", "adult", f"patient/{type}.r"), **parameters).status == 200
        assert ask(served, path, served.app_token("adult", "adult", f"patient/{type}.s"), **parameters).status == 200
        assert ask(served, path, served.app_token("adult", "adult", "patient/Observation.rs"), **parameters).status == 403
        assert served.get(None, path).status == 401


def test_what_is_stored_without_a_scope_is_as_absent(served: Served) -> None:
    sets = served.app_token("adult", "adult", "patient/ValueSet.rs")
    answer = ask(served, "ValueSet/$expand", sets, url="urn:tests:all")
    assert (answer.status, answer.json["issue"][0]["code"]) == (422, "not-supported")
    both = served.app_token("adult", "adult", "patient/ValueSet.rs patient/CodeSystem.rs")
    assert codes(ask(served, "ValueSet/$expand", both, url="urn:tests:all"))[:1] == ["dog"]
    narrowed = served.app_token("adult", "adult", "patient/ValueSet.rs?url=urn:other patient/CodeSystem.rs")
    assert ask(served, "ValueSet/$expand", narrowed, url="urn:tests:all").body == ask(
        served, "ValueSet/$expand", narrowed, url="urn:tests:alm"
    ).body.replace(b"alm", b"all")


def test_a_write_changes_the_next_answer(served: Served) -> None:
    for number, code in enumerate(("male", "female")):
        include = {"system": SEX, "concept": [{"code": code}]}
        changing = {"resourceType": "ValueSet", "id": "c", "url": "urn:tests:c", "status": "active", "compose": {"include": [include]}}
        assert put(served, changing) == (201 if number == 0 else 200)
        assert codes(ask(served, "ValueSet/$expand", url="urn:tests:c")) == [code]
    grown = SYSTEM | {"id": "grown", "url": "urn:tests:grown", "concept": [{"code": "a"}]}
    assert put(served, grown) == 201
    assert values(ask(served, "CodeSystem/$validate-code", url="urn:tests:grown", code="b"))["result"] is False
    assert put(served, grown | {"concept": [{"code": "a"}, {"code": "b"}]}) == 200
    assert values(ask(served, "CodeSystem/$validate-code", url="urn:tests:grown", code="b"))["result"] is True


def test_the_latest_version_is_taken_unless_one_is_named(served: Served) -> None:
    for id, version, code in (("v9", "9", "male"), ("v10", "10", "female"), ("v2", "2", "other")):
        include = [{"system": SEX, "concept": [{"code": code}]}]
        one = {"resourceType": "ValueSet", "id": id, "url": "urn:tests:v", "version": version, "status": "active"}
        put(served, one | {"compose": {"include": include}})
    assert codes(ask(served, "ValueSet/$expand", url="urn:tests:v")) == ["female"]
    assert codes(ask(served, "ValueSet/$expand", url="urn:tests:v|2")) == ["other"]
    assert codes(ask(served, "ValueSet/$expand", url="urn:tests:v", valueSetVersion="9")) == ["male"]


HOSTILE = (
    "", " ", "|", "|1", "a|", "a|b|c", "\0", "é\\", "$x,y", "../x", "ValueSet/all", "#a", "urn:tests:all",
    ANIMALS, "x" * 3000, "%", "'\"", "-1",
)  # fmt: skip


def test_hostile_parameters_are_no_server_error(served: Served) -> None:
    token, drawn = served.token(), random.Random(5)
    names = ("url", "code", "system", "version", "filter", "count", "offset", "display", "codeA", "codeB", "target", "system-version", "x")
    paths = [path for route in OPERATIONS for path in ("/".join(route[0]).replace("{id}", "all"),)]
    seen = set()
    for _ in range(150):
        pairs = [(drawn.choice(names), drawn.choice(HOSTILE)) for _ in range(drawn.randrange(4))]
        search = drawn.choice(("code:in", "code:not-in", "code:below", "code:above", "_filter"))
        asked = f"Observation?{urlencode([(search, drawn.choice(HOSTILE))])}"
        if drawn.random() < 0.7:
            asked = f"{drawn.choice(paths)}?{urlencode(pairs)}"
        seen.add(served.get(token, asked).status)
    assert seen <= {200, 400, 404, 422} and {400, 404} <= seen


def test_operations_answer_in_batches(served: Served) -> None:
    body = {"resourceType": "Parameters", "parameter": [{"name": "url", "valueUri": "urn:tests:all"}]}
    entries = [
        {"request": {"method": "GET", "url": f"ValueSet/$expand?url={GENDERS}"}},
        {"request": {"method": "POST", "url": "ValueSet/$expand"}, "resource": body},
        {"request": {"method": "GET", "url": f"CodeSystem/$lookup?system={SEX}&code=male"}},
    ]
    answer = served.request(served.token(), "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert [entry["response"]["status"][:3] for entry in answer.json["entry"]] == ["200", "200", "200"]
    assert answer.json["entry"][0]["resource"]["expansion"]["total"] == 4


def test_the_terminology_capabilities_name_what_ships_and_are_valid() -> None:
    stated = terminology_capabilities("http://127.0.0.1:8000/fhir", 0)
    assert check("TerminologyCapabilities", stated) == ()
    assert {SEX, V3_SEX, "https://fhir-server.example/ig/CodeSystem/proxy-level"} <= {one["uri"] for one in stated["codeSystem"]}
    assert len(gzip.compress(json.dumps(stated).encode())) < 20_000
