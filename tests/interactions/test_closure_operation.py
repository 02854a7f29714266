"""``$closure``: tables that grow by the concepts a client names, with every store."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.interactions import closure
from tests.interactions.terminology_material import ANIMALS, terminology_server
from tests.served import Answer, Served

served = terminology_server()


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
