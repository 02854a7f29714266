"""The one parser of literal references: exactly R4's grammar, and what each way to follow a reference accepts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.resources import definitions, references
from fhir_server.resources.references import parse_reference

UUID = "53fefa32-fcbb-4ff8-8a92-55ee120877b7"
KINDS = {
    "Patient/1": "relative",
    "Patient/1/_history/2": "relative",
    "Observation/A.b-9": "relative",
    "#": "fragment",
    "#p": "fragment",
    "https://other.example/fhir/Patient/1": "absolute",
    "https://other.example/fhir/Patient/1#part": "absolute",
    "http://other.example/a/paper.pdf?page=2": "absolute",
    "ftp://other.example/x": "absolute",
    f"urn:uuid:{UUID}": "urn",
    "urn:oid:1.2.840.1": "urn",
    "Patient?identifier=http://x.example|1": "conditional",
}
NONE = (
    "", " ", "/", "Patient", "Patient/", "/Patient/1", "Patient/1/", "Patient//1", "./Patient/1", "../Patient/1", "fhir/Patient/1",
    " Patient/1", "Patient/1 ", "Patient/1\n", "patient/1", "PATIENT/1", "Patients/1", "Patient/a_b", "Patient/" + "a" * 65,
    "Patient/1#name",
    "Patient/1?x=1", "Patient?", "Patients?x=1", "Patient/1/_history", "Patient/1/_history/", "Patient/1/_history/1/2", "Patient/1/name",
    "Patient%2F1", "P%61tient/1", "Patient\\1", "#a b", "##", "# p", "urn:uuid:1", "urn:uuid:", "URN:UUID:" + UUID, "urn:oid:3.1",
    "urn:oid:1.02", "urn:isbn:1", "mailto:a@x.example", "http:/x/Patient/1", "http:Patient/1", "http://", "http:///fhir/Patient/1",
    "http://x.example/a b", "http://x.example\\fhir", "//x.example/fhir/Patient/1", "x.example/fhir/Patient/1", "Patient/é",
    "http://x/\x00",
)  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), KINDS.items())
def test_each_form_of_the_grammar_is_read(text: str, kind: str) -> None:
    reference = parse_reference(text)
    assert reference is not None and reference.kind == kind


@pytest.mark.parametrize("text", NONE)
def test_any_other_text_is_no_reference(text: str) -> None:
    assert parse_reference(text) is None


@given(st.text(alphabet="PatientObserv/_history#?.:-12 \\%éaB\n", max_size=40))
def test_parser_accepts_only_r4s_expressions(text: str) -> None:
    reference = parse_reference(text)
    id = r"[A-Za-z0-9\-.]{1,64}"
    relative = re.fullmatch(rf"(?:{'|'.join(definitions.types())})/{id}(?:/_history/{id})?", text)
    assert (reference is not None and reference.kind == "relative") is (relative is not None)
    assert reference is None or relative or re.fullmatch(rf"#(?:{id})?|[A-Z]\w+\?\S+|[A-Za-z][A-Za-z0-9+.-]*://\S+", text)


def test_parts_of_a_reference_are_read() -> None:
    assert parse_reference("Patient/1/_history/2") == ("relative", "Patient", "1", "2", "")
    assert parse_reference("https://x.example/r4/Unknown/1/_history/2") == ("absolute", "Unknown", "1", "2", "https://x.example/r4")
    assert parse_reference("https://x.example/paper.pdf") == ("absolute", "", "", "", "")
    assert parse_reference("Patient?identifier=1") == ("conditional", "Patient", "", "", "")


RELATIVE, VERSION, FRAGMENT, QUERY, ABSOLUTE = (
    "Patient/1",
    "Patient/1/_history/2",
    "Patient/1#p",
    "Patient/1?x=1",
    "https://x.example/Patient/1",
)


@pytest.mark.parametrize(
    ("function", "accepted"),
    [
        (references.exact_target, {RELATIVE}),
        (references.versioned_target, {RELATIVE, VERSION}),
        (references.url_target, {RELATIVE, VERSION, FRAGMENT, QUERY}),
        (references.type_at_end, {RELATIVE, VERSION, ABSOLUTE}),
        (references.restful, {ABSOLUTE}),
    ],
)
def test_each_function_accepts_exactly_its_forms(function: Callable[[str], Any], accepted: set[str]) -> None:
    texts = {RELATIVE, VERSION, FRAGMENT, QUERY, ABSOLUTE, *(set(NONE) - {FRAGMENT, QUERY, "Patient/1#name"}), "#p", f"urn:uuid:{UUID}"}
    assert {text for text in texts if function(text) is not None} == accepted
