"""What the tests of the terminology operations ask of, and how they ask."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from tests.filled import served_with
from tests.served import Answer, Served

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


def terminology_server() -> Any:
    """The fixture of a server, on each store in turn, with this code system, its supplement, the value set and the map."""
    return served_with(SYSTEM, SUPPLEMENT, ALL, MAP)


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
