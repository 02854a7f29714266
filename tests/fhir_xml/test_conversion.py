"""JSON to XML and back: nothing is lost or changed, elements have R4's order, and what R4 does not define is refused with its place."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fhir_server.errors import Problem
from fhir_server.fhir_xml import to_json, to_xml
from fhir_server.fhir_xml.members import members
from fhir_server.resources import definitions
from tests.fhir_xml.official_examples import exactly, official_examples
from tests.sample_data import SYNTHEA, needs_samples, samples
from tests.served import ROOT

FHIR = "{http://hl7.org/fhir}"
DIV = "<div xmlns='http://www.w3.org/1999/xhtml'><!-- kept --><p>1 &lt; 2 &amp; \\\"3\\\"<br />é</p></div>"
EACH_KIND = b"""{"resourceType":"Patient","id":"p","meta":{"versionId":"3","tag":[{"code":"a"}]},
 "text":{"status":"generated","div":"%s"},
 "contained":[{"resourceType":"Organization","id":"o"},{"resourceType":"Basic","code":{"text":"x"}}],
 "extension":[{"url":"urn:a","extension":[{"url":"b","valueDecimal":1.50},{"id":"x","url":"c","valueBoolean":false}]}],
 "active":true,"_active":{"id":"act"},
 "name":[{"id":"n1",
 "given":["A",null,"C"],"_given":[null,{"extension":[{"url":"urn:r","valueCode":"masked"}]},null]},
 {"family":"\\"<&>'\\t\\r\\n \\u00a0 x "}],
 "birthDate":"1970-03","_birthDate":{"extension":[{"url":"urn:t","valueDateTime":"1970-03-30T01:02:03.10+01:00"}]},
 "_gender":{"extension":[{"url":"urn:u","valueString":"unknown"}]},
 "multipleBirthInteger":2,"photo":[{"data":"AAAA","size":10}]}""" % DIV.encode()


@pytest.mark.parametrize("pretty", [False, True])
def test_every_kind_of_member_comes_back_as_it_was(pretty: bool) -> None:
    xml = to_xml(EACH_KIND, pretty=pretty)
    assert exactly(to_json(xml)) == exactly(EACH_KIND)
    assert b'<valueDecimal value="1.50"/>' in xml and b'<extension url="c"' not in xml and b'id="x" url="c"' in xml
    assert b"<contained><Organization>" in re.sub(rb">\s+<", b"><", xml) and (b"\n  <id" in xml) == pretty


@pytest.mark.parametrize(
    "digits", ["1.50", "0.10", "-0", "-0.0", "1e5", "1.0E-7", "100000000000000000000000000000.000", "12345678901234567890"]
)
def test_digits_of_decimals_survive(digits: str) -> None:
    text = b'{"resourceType":"Observation","valueQuantity":{"value":%s}}' % digits.encode()
    assert f'value="{digits}"'.encode() in to_xml(text) and to_json(to_xml(text)) == text


def test_elements_have_the_order_of_the_definitions_whatever_order_the_json_has() -> None:
    xml = to_xml(b'{"name":[{"period":{"end":"2020"},"family":"x","use":"usual"}],"id":"1","birthDate":"1970","resourceType":"Patient"}')
    assert re.findall(rb"<(\w+)", xml) == [b"Patient", b"id", b"name", b"use", b"family", b"period", b"end", b"birthDate"]


def test_other_spellings_of_xml_are_read_as_the_same_resource() -> None:
    text = b"""\xef\xbb\xbf<?xml version='1.0' encoding="utf-8"?><!-- a --><?pi x?>
      <f:Patient xmlns:f="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"
         xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://hl7.org/fhir fhir.xsd">
        <f:text><f:status value="generated"/><h:div h2="" xml:lang="en">a<h:b>&#x62;</h:b><![CDATA[<]]><?drop me?></h:div></f:text>
        <!-- b --><f:birthDate value='19&#x37;0'></f:birthDate></f:Patient>""".replace(b' h2=""', b"")
    assert exactly(to_json(text)) == {
        "resourceType": "Patient",
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml" xml:lang="en">a<b>b</b>&lt;</div>'},
        "birthDate": "1970",
    }


def patient(inner: str, start: str = '<Patient xmlns="http://hl7.org/fhir">') -> bytes:
    return f"{start}{inner}</Patient>".encode()


REFUSED: list[tuple[str, bytes, str]] = [
    ("unknown element", patient('<name><colour value="x"/></name>'), "Patient.name[0]"),
    ("unknown attribute", patient('<name><given value="a"/><given value="b" lang="de"/></name>'), "Patient.name[0].given[1]"),
    ("attribute of a resource", patient("", '<Patient xmlns="http://hl7.org/fhir" id="x">'), "Patient"),
    ("attribute of another namespace", patient('<active xmlns:x="urn:x" x:value="true"/>'), "Patient.active"),
    ("value of a complex element", patient('<name value="x"/>'), "Patient.name[0]"),
    ("twice", patient('<active value="true"/><active value="true"/>'), "Patient"),
    ("wrong order", patient('<birthDate value="1970"/><active value="true"/>'), "Patient"),
    ("not contiguous", patient('<name><given value="a"/><prefix value="b"/><given value="c"/></name>'), "Patient.name[0]"),
    ("text", patient("<name>Smith</name>"), "Patient.name[0]"),
    ("text in a primitive", patient("<active>true</active>"), "Patient.active"),
    ("mixed", patient("x"), "Patient"),
    ("no number", patient('<multipleBirthInteger value="01"/>'), "Patient.multipleBirthInteger"),
    ("no boolean", patient('<active value="1"/>'), "Patient.active"),
    ("empty element", patient("<active/>"), "Patient.active"),
    ("empty value", patient('<active value=""/>'), "Patient.active"),
    ("empty complex element", patient("<name/>"), "Patient.name[0]"),
    ("empty resource holder", patient("<contained/>"), "Patient.contained[0]"),
    ("two resources", patient('<contained><Basic/><Basic/></contained>'), "Patient.contained[0]"),
    ("no resource within", patient('<contained><name/></contained>'), "Patient.contained[0]"),
    ("empty narrative", patient('<text><status value="empty"/><div xmlns="http://www.w3.org/1999/xhtml"/></text>'), "Patient.text"),
    ("narrative of FHIR", patient("<text><div>x</div></text>"), "Patient.text"),
    ("FHIR in narrative", patient('<text><h:div xmlns:h="http://www.w3.org/1999/xhtml"><b>x</b></h:div></text>'), ""),
    ("no namespace", b"<Patient/>", ""),
    ("other namespace", b'<Patient xmlns="urn:hl7-org:v3"/>', ""),
    ("namespace of one element", patient('<active xmlns="urn:x" value="true"/>'), "Patient"),
    ("no resource", b'<Quantity xmlns="http://hl7.org/fhir"/>', ""),
    ("abstract", b'<DomainResource xmlns="http://hl7.org/fhir"/>', ""),
    ("unknown root", b'<Person2 xmlns="http://hl7.org/fhir"/>', ""),
    ("JSON", b'{"resourceType":"Patient"}', ""),
    ("nothing", b"", ""),
    ("unclosed", b'<Patient xmlns="http://hl7.org/fhir">', ""),
    ("attribute twice", patient('<active value="true" value="false"/>'), ""),
    ("unbound prefix", b"<f:Patient/>", ""),
    ("not UTF-8", patient('<id value="\xe9"/>').decode().encode("latin-1"), ""),
    ("declared otherwise", b'<?xml version="1.0" encoding="ISO-8859-1"?>' + patient(""), ""),
    ("UTF-16", patient("").decode().encode("utf-16"), ""),
    ("UTF-16 without a mark", patient("").decode().encode("utf-16-le"), ""),
    ("UTF-32", patient("").decode().encode("utf-32"), ""),
    ("DTD", b"<!DOCTYPE Patient>" + patient(""), ""),
    ("external DTD", b'<!DOCTYPE Patient SYSTEM "file:///etc/passwd">' + patient(""), ""),
    ("entity", b'<!DOCTYPE Patient [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + patient('<id value="&e;"/>'), ""),
    ("undefined entity", patient('<id value="&nbsp;"/>'), ""),
    ("billion laughs", b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + patient('<id value="&b;"/>'), ""),
    ("parameter entity", b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/x"> %p;]>' + patient(""), ""),
    ("deep", patient('<extension url="x">' * 100_000), ""),
    ("deep narrative", patient('<text><div xmlns="http://www.w3.org/1999/xhtml">' + "<b>" * 100_000), "Patient.text"),
    ("control character", patient('<id value="&#1;"/>'), ""),
    ("XInclude", patient('<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd"/>'), "Patient"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_resource_in_xml_is_refused_with_its_place(text: bytes, place: str) -> None:
    with pytest.raises(Problem) as refused:
        to_json(text)
    (issue,) = refused.value.issues
    assert (refused.value.status, issue.expression) == (400, (place,) if place else ())
    assert len(str(refused.value)) < 300


def test_no_entity_is_ever_looked_up(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not read me")
    for text in (f'<!DOCTYPE Patient [<!ENTITY e SYSTEM "{secret.as_uri()}">]>', f'<!DOCTYPE Patient SYSTEM "{secret.as_uri()}">'):
        with pytest.raises(Problem, match="document type") as refused:
            to_json(text.encode() + patient('<id value="&e;"/>'))
        assert "do not read me" not in refused.value.outcome().decode()


def test_a_patched_resource_may_have_its_elements_in_any_order() -> None:
    text = patient('<birthDate value="1970"/><name><given value="a"/></name><id value="1"/><name><given value="b"/></name>')
    assert to_json(text, ordered=False) == (
        b'{"resourceType":"Patient","id":"1","name":[{"given":["a"]},{"given":["b"]}],"birthDate":"1970"}'
    )


def test_all_members_of_all_types_have_distinct_names_and_a_place() -> None:
    paths = {row.path.rpartition(".")[0] for name in definitions.types() for row in definitions.elements(name) if "." in row.path}
    for path in (*paths, *definitions.datatypes()):
        table = members(path)
        assert [member.order for member in table.values()] == list(range(len(table))) and table, path


def require_ordered(node: ElementTree.Element, path: str) -> None:
    """Require that the elements of a resource are such as R4 defines, in R4's order, by a reading of its own."""
    table = members(path)
    orders = []
    for child in node:
        name = child.tag.removeprefix(FHIR)
        if name.startswith("{"):
            continue
        member = table[name]
        orders.append(member.order)
        if member.kind == "resource":
            (inner,) = child
            require_ordered(inner, inner.tag.removeprefix(FHIR))
        elif member.kind != "xhtml":
            require_ordered(child, "Element" if member.kind == "primitive" else member.type)
    assert orders == sorted(orders), path


def require_identity(name: str, text: bytes) -> None:
    xml = to_xml(text)
    assert exactly(to_json(xml)) == exactly(text), name
    root = ElementTree.fromstring(xml)
    require_ordered(root, root.tag.removeprefix(FHIR))


@pytest.mark.slow
def test_all_official_examples_come_back_as_they_were() -> None:
    found = [require_identity(name, text) for name, text in official_examples()]
    assert len(found) > 5300


@needs_samples(SYNTHEA)
def test_a_synthea_record_comes_back_as_it_was() -> None:
    path = min(samples(SYNTHEA), key=lambda path: path.stat().st_size)
    require_identity(path.name, gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("resource", [b'{"resourceType":"Patient","colour":"red"}', b'{"resourceType":"Patient","name":[{"x":1}]}'])
def test_members_that_r4_does_not_define_are_never_left_out_in_silence(resource: bytes) -> None:
    with pytest.raises(ValueError, match="does not define"):
        to_xml(resource)


def test_seeds_come_back_as_they_were() -> None:
    seeds: list[Any] = [require_identity(path.name, path.read_bytes()) for path in sorted((ROOT / "seed_bundles").rglob("*.json"))]
    assert seeds
