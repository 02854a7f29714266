"""The words of resources, and the conditions of ``_text`` and ``_content``."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.resources import definitions
from fhir_server.search import index, query, words
from fhir_server.search.match import matches
from fhir_server.search.rows import Entry, SearchableRow
from tests.search.samples import RESOURCES

BASE = "http://us.example/fhir"
_DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><!-- secret --><p title="a > b">Bone &amp; Łiver<br/>ÄRZTE</p></div>'
CONDITION: dict[str, Any] = {
    "resourceType": "Condition", "id": "hidden-id", "meta": {"tag": [{"display": "metatag"}]},
    "text": {"status": "generated", "div": _DIV},
    "code": {"coding": [{"system": "http://system.example", "code": "C79.51", "display": "Secondary neoplasm"}], "text": "Metastasés"},
    "subject": {"reference": "Patient/reffed", "display": "Pat"},
    "onsetString": "Last_spring", "recordedDate": "2026-05-04", "severity": {"text": "x" * 101},
    "_recordedDate": {"extension": [{"url": "urn:why", "valueMarkdown": "about *then*"}]},
    "note": [{"text": "kept"}, {"text": "cut"}],
    "contained": [{"resourceType": "Practitioner", "id": "inner", "name": [{"family": "O'conner"}]}],
}  # fmt: skip


def found(entries: list[Entry]) -> dict[str, list[str]]:
    return {param: sorted(str(e.value[0]) for e in entries if e.param == param) for param in {entry.param for entry in entries}}


def test_words_come_from_texts_alone_and_are_folded() -> None:
    assert found(words.entries("Condition", CONDITION)) == {
        "_text": [" arzte bone łiver "],
        "_content": [" 51 about c79 conner cut kept last metastases neoplasm o pat secondary spring then "],
    }


def test_texts_in_members_apart_have_entries_with_their_paths_and_are_merged_by_class() -> None:
    made = words.entries("Condition", CONDITION, {"note"})
    apart = {entry.path: entry.value[0] for entry in made if entry.path[0] == "note"}
    assert apart == {("note", 0, "text"): " kept ", ("note", 1, "text"): " cut "}
    classed = [Entry(e.param, e.kind, e.value, e.path, 7 if e.path[:2] == ("note", 1) else 0) for e in made]
    merged = words.merged([*classed, Entry("code", "token", ("", "a"))])
    assert {(e.param, e.class_id): e.value[0] for e in merged if e.kind == "words"} == {
        ("_text", 0): " arzte bone łiver ",
        ("_content", 0): " 51 about c79 conner kept last metastases neoplasm o pat secondary spring then ",
        ("_content", 7): " cut ",
    }
    assert [e for e in merged if e.kind != "words"] == [Entry("code", "token", ("", "a"))]


def _strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for child in node.values() for text in _strings(child)]
    return [text for item in node for text in _strings(item)] if isinstance(node, list) else [node] if isinstance(node, str) else []


@pytest.mark.parametrize("resource", RESOURCES)
def test_apart_or_together_the_words_are_the_same_and_occur_in_the_resource(resource: dict[str, Any]) -> None:
    type = resource["resourceType"]
    whole, parted = (words.merged(words.entries(type, resource, apart)) for apart in ((), tuple(resource)))
    assert [(e.param, e.value) for e in whole] == [(e.param, e.value) for e in parted]
    written = set(words.words(" ".join(_strings(resource))))
    assert {word for entry in whole for word in str(entry.value[0]).split()} <= written


HOLDS = [
    ("_text", "bone", True), ("_text", "BONE ärzte", True), ("_text", "bone cut", False), ("_text", "bon", False),
    ("_text", "secret", False), ("_text", "title", False), ("_text", "kept", False), ("_text", "liver", False), ("_text", "Łiver", True),
    ("_content", "metastases", True), ("_content", "(bone OR nothing) and metastasés", True),
    ("_content", "(none or nothing) metastases", False), ("_content", "none or bone and cut", True),
    ("_content", "bone and (cut or none) and (kept)", True), ("_content", "none,kept", True), ("_content", "C79.51", True),
    ("_content", "c79.52", False), ("_content", "Patient/reffed", False), ("_content", "generated", False),
    ("_content", "metatag", False), ("_content", "hidden", False), ("_content", "2026", False), ("_content", "system", False),
    ("code:text", "metast", True), ("code:text", "SECONDARY neo", True), ("code:text", "neoplasm", False), ("code:text", "C79", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), HOLDS)
def test_condition_holds_for_words_and_texts(name: str, value: str, expected: bool) -> None:
    row = SearchableRow("Condition", "x", (), 0, 0, index.entries_with_words("Condition", CONDITION, BASE))
    assert matches(query.condition("Condition", [(name, value)], 0, BASE), row, frozenset({0})) is expected


def test_every_type_has_content_and_those_with_a_narrative_have_text() -> None:
    without = {type for type in definitions.types() if words.parameters(type) != ("_text", "_content")}
    assert without == {"Binary", "Bundle", "Parameters"}
    assert all(words.parameters(type) == ("_content",) for type in without)
