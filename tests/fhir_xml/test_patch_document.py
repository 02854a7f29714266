"""XML Patch of a resource: what each operation does, what it leaves as it is written, and what it refuses."""

from __future__ import annotations

import pytest

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.fhir_xml import patch

DIV = "<div xmlns='http://www.w3.org/1999/xhtml'>a<br />b</div>"
TEXT = (
    b'{"birthDate":"1970","resourceType":"Patient","name":[{"given":["b"],"use":"usual"},{"family":"x"}],"active":true,'
    b'"text":{"status":"generated","div":"%s"},"identifier":[{"system":"s","value":"1]"},{"system":"t","value":"1]"}],'
    b'"extension":[{"valueDecimal":1.50,"url":"urn:x"}]}' % DIV.encode()
)
PREFIXES = 'xmlns:f="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"'


def patched(*operations: str, prefixes: str = PREFIXES) -> dict[str, bytes]:
    document = f"<diff {prefixes}>{' '.join(operations)}</diff>".encode()
    return jsontext.members(patch.apply(patch.parse(document), TEXT, 10_000))


BEFORE = jsontext.members(TEXT)
DONE: list[tuple[str, str, bytes | None]] = [
    ('<replace sel="f:Patient/f:active/@value">false</replace>', "active", b"false"),
    ('<replace sel="/f:Patient/f:active"><f:active value="false"/></replace>', "active", b"false"),
    ('<remove sel="f:Patient/f:birthDate"/>', "birthDate", None),
    ('<add sel="f:Patient"><gender xmlns="http://hl7.org/fhir" value="male"/></add>', "gender", b'"male"'),
    ('<add sel="f:Patient/f:name[1]"><f:given value="c"/></add>', "name", b'[{"use":"usual","given":["b","c"]},{"family":"x"}]'),
    ('<add sel="f:Patient/f:name[1]/f:given" pos="before"><f:given value="a"/></add>', "name",
     b'[{"use":"usual","given":["a","b"]},{"family":"x"}]'),
    ('<add sel="f:Patient/f:name[2]" pos="after"><f:name><f:text value="&lt;"/></f:name></add>', "name",
     b'[{"given":["b"],"use":"usual"},{"family":"x"},{"text":"<"}]'),
    ('<add sel="f:Patient" pos="prepend"><f:name><f:text value="y"/></f:name></add>', "name",
     b'[{"text":"y"},{"given":["b"],"use":"usual"},{"family":"x"}]'),
    ('<remove sel="f:Patient/f:name[f:use/@value=\'usual\']"/>', "name", b'[{"family":"x"}]'),
    ("<add sel=\"f:Patient/f:identifier[f:system/@value='t'][f:value/@value='1]']\" type=\"@id\">q</add>", "identifier",
     b'[{"system":"s","value":"1]"},{"id":"q","system":"t","value":"1]"}]'),
    ('<add sel="f:Patient/f:birthDate"><f:extension url="urn:y"><f:valueCode value="z"/></f:extension></add>', "_birthDate",
     b'{"extension":[{"url":"urn:y","valueCode":"z"}]}'),
    ('<remove sel="f:Patient/f:active[@value=\'true\']"/>', "active", None),
    ('<remove sel="f:Patient/*[1]"/>', "text", None),
    ('<replace sel="f:Patient/f:text/h:div[.=\'ab\']/text()">new</replace>', "text",
     b'{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">new<br></br>b</div>"}'),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "name", "expected"), DONE)
def test_an_operation_changes_what_it_selects_and_nothing_else(operation: str, name: str, expected: bytes | None) -> None:
    after = patched(operation)
    assert after.get(name) == expected
    assert {key: after.get(key) for key in BEFORE if key != name} == {key: value for key, value in BEFORE.items() if key != name}


def test_names_without_prefix_are_of_the_default_namespace_of_the_patch() -> None:
    assert "birthDate" not in patched('<remove sel="Patient/birthDate"/>', prefixes='xmlns="http://hl7.org/fhir"')
    with pytest.raises(Problem, match="exactly one place"):
        patched('<remove sel="Patient/birthDate"/>')


@pytest.mark.parametrize(
    "operation",
    [
        '<remove sel="f:Patient/f:name"/>',
        '<remove sel="f:Patient/f:photo"/>',
        '<remove sel="f:Patient/f:name[3]"/>',
        '<remove sel="f:Observation/f:name[1]"/>',
        '<remove sel="f:Patient"/>',
        '<replace sel="f:Patient/f:active/@id">x</replace>',
        '<replace sel="f:Patient/f:active"><f:active value="x"/></replace>',
        '<replace sel="f:Patient/f:active"/>',
        '<add sel="f:Patient"><f:colour value="red"/></add>',
        '<add sel="f:Patient"><f:active value="true"/></add>',
        '<add sel="f:Patient/f:active" type="@value">false</add>',
        '<add sel="f:Patient/f:active" type="@other">false</add>',
        '<add sel="f:Patient">text</add>',
        '<add sel="f:Patient" pos="before"><f:active/></add>',
        '<add sel="f:Patient/f:active/@value">x</add>',
        '<remove sel="f:Patient/f:active/@value"/>',
        '<replace sel="f:Patient"><x:Patient xmlns:x="urn:other"/></replace>',
    ],
)
def test_what_cannot_be_done_is_422(operation: str) -> None:
    with pytest.raises(Problem) as refused:
        patched(operation)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"<other/>",
        b"<diff>x</diff>",
        b"<diff><move sel='a'/></diff>",
        b"<diff><remove/></diff>",
        b"<diff><remove sel=''/></diff>",
        b"<diff><remove sel='a//b'/></diff>",
        b"<diff><remove sel='a/'/></diff>",
        b"<diff><remove sel='a[b'/></diff>",
        b"<diff><remove sel='a[last()]'/></diff>",
        b"<diff><remove sel='a[0]'/></diff>",
        b"<diff><remove sel='id(1)'/></diff>",
        b"<diff><remove sel='../a'/></diff>",
        b"<diff><remove sel='x:a'/></diff>",
        b"<diff><remove sel='document(1)/a'/></diff>",
        b"<diff><add sel='a' type='namespace::x'/></diff>",
        b"<diff><add sel='a' pos='inside'/></diff>",
        b"<diff><add sel='a' href='x'/></diff>",
        b"<diff>" + b"<remove sel='a'/>" * 201 + b"</diff>",
        b"<diff><remove sel='" + b"a/" * 2000 + b"a'/></diff>",
        b"<!DOCTYPE diff [<!ENTITY e 'x'>]><diff><remove sel='a'/></diff>",
        b"<diff>" + b"<a>" * 100_000,
        "<diff/>".encode("utf-16"),
        b"<?xml version='1.0' encoding='latin-1'?><diff/>",
    ],
)
def test_what_is_no_xml_patch_is_400(document: bytes) -> None:
    with pytest.raises(Problem) as refused:
        patch.parse(document)
    assert refused.value.status == 400


def test_a_patch_adds_no_more_than_it_may() -> None:
    document = f'<diff {PREFIXES}><add sel="f:Patient"><f:language value="{"x" * 500}"/></add></diff>'.encode()
    with pytest.raises(Problem) as refused:
        patch.apply(patch.parse(document), TEXT, 100)
    assert refused.value.status == 413
