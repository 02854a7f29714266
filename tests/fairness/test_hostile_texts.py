"""Texts that are made to be costly: each costs as much as a harmless one, or is refused, or is work for another process."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from time import thread_time
from typing import Any

import pytest

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.fhir_xml import to_json, tree
from fhir_server.interactions import bundle_entries, raw_binary
from fhir_server.interactions.patch import LargePatchError, XmlPatch
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import server_base
from fhir_server.terminology import regular_expressions
from fhir_server.terminology.expansion import Expander
from fhir_server.terminology.sources import Terminology
from tests.terminology.fixed_source import Fixed, code_system, concept, value_set

FHIR = 'xmlns="http://hl7.org/fhir"'
OF_VALUES = b'{"resourceType":"Observation","id":"x","status":"final","code":{"text":"a"}}'


def memory_of(job: Callable[[], Any]) -> int:
    """The bytes that a job takes at most at a time."""
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"<!--" + b"a" * 500_000, b"<!--x-->" * 60_000, b" " * 500_000, b"<!--x-->\n " * 60_000])
def test_whether_content_is_a_binary_in_xml_is_decided_without_memory(text: bytes) -> None:
    assert memory_of(lambda: raw_binary._XML_BINARY.match(text)) < 50_000
    assert raw_binary._XML_BINARY.match(b"<!-- a --><!-- b -->\n<Binary/>") and not raw_binary._XML_BINARY.match(b"<!-- <Binary/> -->")


def test_links_in_an_xml_patch_are_looked_for_in_one_pass() -> None:
    """Before, each attribute of an element that does not end began a search to the end of the text."""
    links = BundleLinks(server_base("http://127.0.0.1:8000/fhir"))

    def seconds(text: str) -> float:
        began = thread_time()
        assert bundle_entries._with_links_in_xml(text.encode(), "", links) == text.encode()
        return thread_time() - began

    attribute = "sel='reference' "
    harmless, hostile = "<a " + attribute.replace("sel", "nil") * 6000 + ">", "<a " + attribute * 6000
    assert seconds(hostile) < 100 * max(seconds(harmless), 0.001)


@pytest.mark.parametrize("selector", ["*/*" + "[.='']" * 300, "/".join(["*[.='']"] * 200), "*" + "[*/*/@value='x']" * 120])
def test_a_patch_with_costly_selectors_is_done_in_another_process(selector: str) -> None:
    document = f'<diff {FHIR}><remove sel="{selector}"/></diff>'.encode()
    with pytest.raises(LargePatchError):
        XmlPatch(document)(OF_VALUES, 1000)
    simple = f'<diff {FHIR}><remove sel="Observation/code/text"/></diff>'.encode()
    assert b"text" not in XmlPatch(simple)(OF_VALUES.replace(b'"text":"a"', b'"text":"a","id":"1"'), 1000)


def test_the_namespaces_that_a_patch_declares_are_not_kept_for_each_element() -> None:
    declared = "".join(f" xmlns:n{number}='u'" for number in range(2000))
    operation = "<remove xmlns:b='u'/>"
    text = f"<diff{declared}>{operation * 2000}<add><x xmlns:c='u'/></add></diff>".encode()
    assert memory_of(lambda: tree.parse(text)) < 20_000_000
    root = tree.parse(b"<diff xmlns:a='u'><add xmlns:b='v'/></diff>")
    assert dict(root.elements[0].prefixes) == {"a": "u", "b": "v"}


def test_a_resource_declares_few_prefixes() -> None:
    declared = "".join(f" xmlns:n{number}='u'" for number in range(101))
    with pytest.raises(Problem, match="more than 100 prefixes"):
        to_json(f"<Patient {FHIR}{declared}><active value='true'/></Patient>".encode())


@pytest.mark.parametrize("expression", ["(a?){150}", "a{1,190}", "((a|b)?){60}"])
def test_an_expression_of_a_value_set_has_few_states(expression: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        regular_expressions.compile(expression)


@pytest.mark.parametrize("many", [
    {"include": [{"valueSet": ["urn:a"] * 500}]},
    {"include": [{"system": "urn:s"}], "exclude": [{"valueSet": ["urn:a"]}] * 500},
    {"include": [{"valueSet": ["urn:a"]}] * 500},
])  # fmt: skip
def test_a_value_set_lets_others_go_on_after_each_part(many: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = 0

    async def counted() -> None:
        nonlocal pauses
        pauses += 1

    monkeypatch.setattr(budget, "give_way", counted)
    known = Fixed(code_system("urn:s", concept("a")), value_set("urn:a", {"system": "urn:s"}))
    asked = {"resourceType": "ValueSet", "url": "urn:b", "status": "active", "compose": many}
    asyncio.run(Expander(Terminology([known])).expand(asked))
    assert pauses >= 500
    pauses = 0
    one = {"system": "urn:s", "filter": [{"property": "concept", "op": "is-a", "value": "a"}]}
    asyncio.run(Expander(Terminology([known])).find({**asked, "compose": {"include": [one] * 500}}, "urn:s", "b"))
    assert pauses >= 500
