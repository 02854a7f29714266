"""The terminology operations answer from what ships with the server and from what is stored and visible, with every store."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from fhir_server.access.view import View
from fhir_server.interactions import closure
from fhir_server.interactions.terminology_capabilities import terminology_capabilities
from fhir_server.interactions.terminology_routes import OPERATIONS
from fhir_server.resources.validate import check
from tests.served import Answer, Served, make_store, store_url

ANIMALS, PLACES = "urn:tests:animals", "urn:tests:places"
SEX, V3_SEX = "http://hl7.org/fhir/administrative-gender", "http://terminology.hl7.org/CodeSystem/v3-AdministrativeGender"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"
SYSTEM = {
    "resourceType": "CodeSystem", "id": "animals", "url": ANIMALS, "version": "1", "name": "Animals", "status": "active",
    "content": "complete", "hierarchyMeaning": "is-a", "caseSensitive": False,
    "property": [
        {"code": "legs", "type": "integer", "description": "How many legs"},
        {"code": "notSelectable", "uri": "http://hl7.org/fhir/concept-properties#notSelectable", "type": "boolean"},
        {"code": "inactive", "uri": "http://hl7.org/fhir/concept-properties#inactive", "type": "boolean"},
    ],
    "concept": [
        {
            "code": "dog", "display": "Dog", "definition": "A dog.", "property": [{"code": "legs", "valueInteger": 4}],
            "designation": [{"language": "de-CH", "value": "Hund"}, {"use": {"system": "urn:use", "code": "short"}, "value": "D"}],
            "concept": [{"code": "poodle", "display": "Poodle"}, {"code": "beagle", "display": "Beagle"}],
        },
        {"code": "any", "display": "Any animal", "property": [{"code": "notSelectable", "valueBoolean": True}]},
        {"code": "dodo", "display": "Dodo", "property": [{"code": "inactive", "valueBoolean": True}]},
    ],
}  # fmt: skip
SUPPLEMENT = {
    "resourceType": "CodeSystem", "id": "animals-fr", "url": "urn:tests:animals-fr", "status": "active", "content": "supplement",
    "supplements": ANIMALS, "concept": [{"code": "dog", "designation": [{"language": "fr", "value": "Chien"}]}],
}  # fmt: skip
ALL = {
    "resourceType": "ValueSet", "id": "all", "url": "urn:tests:all", "version": "3", "name": "All", "status": "active",
    "compose": {"include": [{"system": ANIMALS}]},
}  # fmt: skip
MAP = {
    "resourceType": "ConceptMap", "id": "map", "url": "urn:tests:map", "status": "active", "sourceUri": "urn:tests:all",
    "group": [
        {
            "source": ANIMALS, "target": PLACES,
            "element": [
                {"code": "dog", "target": [{"code": "kennel", "display": "Kennel", "equivalence": "wider"}]},
                {"code": "dodo", "target": [{"equivalence": "unmatched"}]},
                {"code": "beagle", "target": [{"code": "pub", "equivalence": "equal", "dependsOn": [{"property": "urn:p", "value": "x"}]}]},
            ],
            "unmapped": {"mode": "fixed", "code": "house", "display": "House"},
        }
    ],
}  # fmt: skip


def put(served: Served, resource: dict[str, Any]) -> int:
    return served.request(served.token(), "PUT", f"{resource['resourceType']}/{resource['id']}", body=resource).status


@pytest.fixture(scope="module", params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = store_url(request.param, tmp_path_factory.mktemp("store"))
    if request.param != "memory":
        make_store(url)
    server = Served(url)
    for one in (SYSTEM, SUPPLEMENT, ALL, MAP):
        assert put(server, one) == 201
    yield server
    server.close()


def ask(served: Served, path: str, token: str | None = None, **parameters: Any) -> Answer:
    """Ask by GET and by POST, which give the same answer."""
    pairs = {name.replace("_", "-"): value for name, value in parameters.items()}
    token = token or served.token()
    got = served.get(token, f"{path}?{urlencode(pairs)}")
    sent = [{"name": name, **_valued(value)} for name, value in pairs.items()]
    body = {"resourceType": "Parameters", **({"parameter": sent} if sent else {})}
    posted = served.request(token, "POST", path, body=body)
    assert (got.status, got.body) == (posted.status, posted.body)
    return got


def _valued(value: Any) -> dict[str, Any]:
    if value in ("true", "false"):
        return {"valueBoolean": value == "true"}
    return {"valueInteger": value} if isinstance(value, int) else {"valueString": value}


def post(served: Served, path: str, *parameters: dict[str, Any]) -> Answer:
    return served.request(served.token(), "POST", path, body={"resourceType": "Parameters", "parameter": list(parameters)})


def codes(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [one["code"] for one in answer.json["expansion"].get("contains", [])]


def values(answer: Answer) -> dict[str, Any]:
    """The simple parameters of an answer."""
    assert answer.status == 200, answer.body
    return {
        one["name"]: next(value for name, value in one.items() if name != "name") for one in answer.json["parameter"] if "part" not in one
    }


def parts(answer: Answer, name: str) -> list[dict[str, Any]]:
    found = [one["part"] for one in answer.json["parameter"] if one["name"] == name]
    return [{part["name"]: next(value for key, value in part.items() if key != "name") for part in one} for one in found]


# $expand


EXPANDED: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({}, ["dog", "poodle", "beagle", "any", "dodo"]),
    ({"filter": "DO"}, ["dog", "dodo"]),
    ({"filter": "hund"}, ["dog"]),
    ({"filter": "any ANIMAL"}, ["any"]),
    ({"activeOnly": "true"}, ["dog", "poodle", "beagle", "any"]),
    ({"excludeNotForUI": "true"}, ["dog", "poodle", "beagle", "dodo"]),
    ({"offset": 1, "count": 2}, ["poodle", "beagle"]),
    ({"offset": 9, "count": 2}, []),
    ({"count": 0}, []),
    ({"exclude-system": ANIMALS}, []),
    ({"system-version": f"{ANIMALS}|1", "excludeNested": "true"}, ["dog", "poodle", "beagle", "any", "dodo"]),
)


@pytest.mark.parametrize(("parameters", "expected"), EXPANDED)
def test_an_expansion_has_the_codes_that_are_asked_for(served: Served, parameters: dict[str, Any], expected: list[str]) -> None:
    assert codes(ask(served, "ValueSet/$expand", url="urn:tests:all", **parameters)) == expected
    assert codes(ask(served, "ValueSet/all/$expand", **parameters)) == expected


def test_an_expansion_says_what_it_was_made_of(served: Served) -> None:
    found = ask(served, "ValueSet/$expand", url="urn:tests:all|3", count=1, includeDesignations="true", displayLanguage="de").json
    assert {name: found[name] for name in ("url", "version", "name", "status")} == {
        "url": "urn:tests:all", "version": "3", "name": "All", "status": "active",
    }  # fmt: skip
    assert (found["expansion"]["total"], found["expansion"]["offset"], "compose" in found) == (5, 0, False)
    assert {"name": "version", "valueUri": f"{ANIMALS}|1"} in found["expansion"]["parameter"]
    assert {"name": "count", "valueInteger": 1} in found["expansion"]["parameter"]
    (dog,) = found["expansion"]["contains"]
    assert (dog["display"], [one["value"] for one in dog["designation"]]) == ("Hund", ["Hund", "D"])
    named = ask(served, "ValueSet/$expand", url="urn:tests:all", designation="urn:use|short", includeDefinition="true").json
    assert [one["value"] for one in named["expansion"]["contains"][0]["designation"]] == ["D"]
    assert named["compose"] == ALL["compose"]
    flags = {one["code"]: one for one in named["expansion"]["contains"]}
    assert (flags["any"]["abstract"], flags["dodo"]["inactive"]) == (True, True)


def test_pages_of_an_expansion_join_to_the_whole(served: Served) -> None:
    url = "http://terminology.hl7.org/ValueSet/v3-RoleCode"
    whole = codes(ask(served, "ValueSet/$expand", url=url))
    pages = [codes(served.get(served.token(), f"ValueSet/$expand?url={url}&offset={at}&count=100")) for at in range(0, len(whole), 100)]
    assert [code for page in pages for code in page] == whole
    assert len(whole) > 300


def test_a_value_set_can_be_sent(served: Served) -> None:
    sent = {
        "resourceType": "ValueSet",
        "status": "draft",
        "compose": {"include": [{"valueSet": ["urn:tests:all", GENDERS]}, {"system": SEX}]},
    }
    assert codes(post(served, "ValueSet/$expand", {"name": "valueSet", "resource": sent})) == ["male", "female", "other", "unknown"]
    assert codes(served.request(served.token(), "POST", "ValueSet/$expand?count=1", body=sent)) == ["male"]
    wrong = {"resourceType": "ValueSet", "status": "nonsense"}
    assert post(served, "ValueSet/$expand", {"name": "valueSet", "resource": wrong}).status == 400


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


# $lookup, $validate-code, $subsumes


def test_lookup_tells_what_is_known_of_a_code_with_its_supplements(served: Served) -> None:
    found = ask(served, "CodeSystem/$lookup", system=ANIMALS, code="DOG")
    assert values(found) == {"name": "Animals", "version": "1", "display": "Dog"}
    assert [one["value"] for one in parts(found, "designation")] == ["Hund", "D", "Chien"]
    properties = [(one["code"], one["value"]) for one in parts(found, "property")]
    assert properties == [("definition", "A dog."), ("child", "poodle"), ("child", "beagle"), ("legs", 4)]
    assert values(ask(served, "CodeSystem/$lookup", system=ANIMALS, code="dog", displayLanguage="fr"))["display"] == "Chien"
    some = ask(served, "CodeSystem/$lookup", system=ANIMALS, code="poodle", property="parent")
    assert [(one["code"], one["value"]) for one in parts(some, "property")] == [("parent", "dog")]
    coding = {"name": "coding", "valueCoding": {"system": V3_SEX, "code": "F"}}
    assert values(post(served, "CodeSystem/$lookup", coding))["display"] == "Female"


VALIDATED: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog"}, True),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "unicorn"}, False),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog", "display": "dog"}, True),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog", "display": "Hund"}, True),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog", "display": "Cat"}, False),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "any", "abstract": "false"}, False),
    ("CodeSystem/animals/$validate-code", {"code": "beagle"}, True),
    ("ValueSet/$validate-code", {"url": GENDERS, "system": SEX, "code": "male"}, True),
    ("ValueSet/$validate-code", {"url": GENDERS, "system": SEX, "code": "m"}, False),
    ("ValueSet/$validate-code", {"url": GENDERS, "system": V3_SEX, "code": "M"}, False),
    ("ValueSet/all/$validate-code", {"system": ANIMALS, "code": "dodo"}, True),
    ("ValueSet/$validate-code", {"url": "http://hl7.org/fhir/ValueSet/condition-code", "system": "http://loinc.org", "code": "1"}, False),
)


@pytest.mark.parametrize(("path", "parameters", "is_right"), VALIDATED)
def test_a_code_is_validated_with_its_display(served: Served, path: str, parameters: dict[str, Any], is_right: bool) -> None:
    found = values(ask(served, path, **parameters))
    assert (found["result"], "message" in found) == (is_right, not is_right)


def test_a_codeable_concept_is_right_if_one_of_its_codings_is(served: Served) -> None:
    concept = {"coding": [{"system": ANIMALS, "code": "unicorn"}, {"system": ANIMALS, "code": "dog"}]}
    for path in ("CodeSystem", "ValueSet"):
        url = {"name": "url", "valueUri": ANIMALS if path == "CodeSystem" else "urn:tests:all"}
        asked = post(served, f"{path}/$validate-code", url, {"name": "codeableConcept", "valueCodeableConcept": concept})
        assert values(asked) == {"result": True, "display": "Dog"}


SUBSUMED = (
    ("dog", "beagle", "subsumes"), ("beagle", "dog", "subsumed-by"), ("dog", "Dog", "equivalent"), ("dog", "dodo", "not-subsumed"),
)  # fmt: skip


@pytest.mark.parametrize(("a", "b", "outcome"), SUBSUMED)
def test_subsumes_says_how_two_codes_stand(served: Served, a: str, b: str, outcome: str) -> None:
    assert values(ask(served, "CodeSystem/$subsumes", system=ANIMALS, codeA=a, codeB=b)) == {"outcome": outcome}
    assert values(ask(served, "CodeSystem/animals/$subsumes", codeA=a, codeB=b)) == {"outcome": outcome}


# $translate


def test_translate_follows_maps(served: Served) -> None:
    found = ask(served, "ConceptMap/$translate", url="urn:tests:map", system=ANIMALS, code="dog")
    assert values(found) == {"result": True}
    coding = {"system": PLACES, "code": "kennel", "display": "Kennel", "userSelected": False}
    assert parts(found, "match") == [{"equivalence": "wider", "concept": coding, "source": "urn:tests:map"}]
    assert ask(served, "ConceptMap/map/$translate", system=ANIMALS, code="dog").body == found.body
    assert ask(served, "ConceptMap/$translate", system=ANIMALS, code="dog", source="urn:tests:all").body == found.body
    back = ask(served, "ConceptMap/map/$translate", system=PLACES, code="kennel", reverse="true")
    assert [(one["equivalence"], one["concept"]["code"]) for one in parts(back, "match")] == [("narrower", "dog")]
    for code, result, to in (("dodo", False, None), ("poodle", True, "house"), ("beagle", True, "house")):
        other = ask(served, "ConceptMap/map/$translate", system=ANIMALS, code=code)
        assert values(other)["result"] is result
        assert [one.get("concept", {}).get("code") for one in parts(other, "match")] == [to]
    assert values(ask(served, "ConceptMap/map/$translate", system="urn:none", code="dog"))["result"] is False


def test_translate_knows_r4_s_own_maps(served: Served) -> None:
    found = ask(served, "ConceptMap/$translate", system=SEX, code="male", targetsystem=V3_SEX)
    assert ("M", True) in [(one["concept"]["code"], values(found)["result"]) for one in parts(found, "match")]


# $closure


def close(served: Served, token: str, name: str = "t", *concepts: str, version: str = "") -> Answer:
    parameters: list[dict[str, Any]] = [{"name": "name", "valueString": name}]
    parameters += [{"name": "concept", "valueCoding": {"system": ANIMALS, "code": code}} for code in concepts]
    parameters += [{"name": "version", "valueString": version}] if version else []
    return served.request(token, "POST", "$closure", body={"resourceType": "Parameters", "parameter": parameters})


def relations(answer: Answer) -> set[tuple[str, str]]:
    assert answer.status == 200, answer.body
    elements = [element for group in answer.json.get("group", []) for element in group["element"]]
    return {(element["code"], target["code"]) for element in elements for target in element["target"]}


def test_a_closure_table_grows_by_the_concepts_that_are_named(served: Served) -> None:
    token = served.token()
    assert (close(served, token).json["version"], relations(close(served, token))) == ("0", set())
    assert relations(close(served, token, "t", "poodle", "dodo")) == set()
    assert relations(close(served, token, "t", "dog")) == {("poodle", "dog")}
    assert relations(close(served, token, "t", "dog")) == set()
    grown = close(served, token, "t", "beagle")
    assert (grown.json["version"], relations(grown)) == ("3", {("beagle", "dog")})
    assert relations(close(served, token, version="1")) == {("poodle", "dog"), ("beagle", "dog")}
    assert relations(close(served, token, version="0")) == {("poodle", "dog"), ("beagle", "dog")}
    assert relations(close(served, token, version="3")) == set()
    assert close(served, token, version="4").status == 400
    assert relations(close(served, token)) == set()
    assert relations(close(served, token, "t", "dog")) == set()


def test_a_closure_table_belongs_to_the_client_and_the_person(served: Served) -> None:
    mine, others = served.app_token("adult", "adult"), served.app_token("parent-a", "teen")
    assert close(served, mine).status == 200
    assert close(served, mine, "t", "dog", "poodle").status == 200
    assert close(served, others, "t", "dog").status == 404
    assert close(served, others).status == 200
    assert relations(close(served, mine, version="0")) == {("poodle", "dog")}


def test_a_closure_table_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.app_token("adult", "adult")
    monkeypatch.setattr(closure, "MAX_CONCEPTS", 2)
    monkeypatch.setattr(closure, "MAX_TABLES", 3)
    assert [close(served, token, name).status for name in ("t", "a", "b", "c")] == [200, 200, 200, 422]
    assert close(served, token, "a", "dog", "poodle").status == 200
    assert close(served, token, "b", "beagle").json["issue"][0]["code"] == "too-costly"
    assert close(served, token, "c", "dog").status == 404
    assert close(served, token, "a", "unicorn").status == 404
    assert close(served, token, "").status == 400
    assert [close(served, token, "n" * length).status for length in (201, 200)] == [400, 422]
    assert close(served, served.app_token("adult", "adult", "patient/ValueSet.rs"), "a").status == 403


# Who may ask, and what they see


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


def test_a_question_reads_what_it_names_often_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token, exact, read = served.token(), View.find_included, Counter[str]()

    async def counted(view: View, type: str, where: Any, limit: int) -> Any:
        read[type] += 1
        return await exact(view, type, where, limit)

    monkeypatch.setattr(View, "find_included", counted)
    assert close(served, token, "once").status == 200
    assert relations(close(served, token, "once", "poodle", "beagle", "dog")) == {("poodle", "dog"), ("beagle", "dog")}
    assert read == {"CodeSystem": 2}  # to take the concepts, and to relate them
    concept = {"coding": [{"system": ANIMALS, "code": code} for code in ("cat", "mouse", "dog")]}
    asked: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("CodeSystem/$validate-code", {}, "CodeSystem"),
        ("ValueSet/$validate-code", {"url": "urn:tests:all"}, "CodeSystem"),
        ("ConceptMap/$translate", {}, "ConceptMap"),
    )
    for path, parameters, type in asked:
        read.clear()
        named = [{"name": name, "valueUri": value} for name, value in parameters.items()]
        answer = post(served, path, {"name": "codeableConcept", "valueCodeableConcept": concept}, *named)
        assert values(answer)["result"] is True
        assert read[type] == 1


def test_a_hidden_code_system_is_as_absent(served: Served) -> None:
    narrow = served.app_token("adult", "adult", "patient/CodeSystem.rs?url=urn:other patient/ConceptMap.rs")

    def answers() -> list[bytes]:
        concept = {"name": "concept", "valueCoding": {"system": "urn:tests:hidden", "code": "a"}}
        body = {"resourceType": "Parameters", "parameter": [{"name": "name", "valueString": "h"}, concept]}
        assert close(served, narrow, "h").status == 200
        found = [served.request(narrow, "POST", "$closure", body=body)]
        found.append(ask(served, "CodeSystem/$lookup", narrow, system="urn:tests:hidden", code="a"))
        found.append(ask(served, "CodeSystem/$validate-code", narrow, url="urn:tests:hidden", code="a"))
        found.append(served.get(narrow, "CodeSystem/hidden/$validate-code?code=a"))
        return [b"%d" % one.status + one.body for one in found]

    before = answers()
    assert put(served, SYSTEM | {"id": "hidden", "url": "urn:tests:hidden", "concept": [{"code": "a"}]}) == 201
    assert values(ask(served, "CodeSystem/$validate-code", url="urn:tests:hidden", code="a"))["result"] is True
    assert answers() == before


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
