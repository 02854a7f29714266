"""What questions about codes read of the store: nothing twice, and no code system that the caller does not see."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fhir_server.access.view import View
from tests.interactions.terminology_material import ANIMALS, SYSTEM, ask, post, terminology_server, values
from tests.interactions.test_closure_operation import close, relations
from tests.served import Served

served = terminology_server()


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
    hidden = SYSTEM | {"id": "hidden", "url": "urn:tests:hidden", "concept": [{"code": "a"}]}
    assert served.request(served.token(), "PUT", "CodeSystem/hidden", body=hidden).status == 201
    assert values(ask(served, "CodeSystem/$validate-code", url="urn:tests:hidden", code="a"))["result"] is True
    assert answers() == before
