"""What each function of the one module for literal references accepts around ``Type/id``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.resources import references

BASE = "https://fhir.example.org/fhir"
RELATIVE, VERSION, FRAGMENT, QUERY = "Patient/1", "Patient/1/_history/2", "Patient/1#name", "Patient/1?x=1"
ABSOLUTE, SEARCH, CONTAINED, URN = f"{BASE}/Patient/1", "Patient?identifier=a", "#p", "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7"
ALL = (RELATIVE, VERSION, FRAGMENT, QUERY, ABSOLUTE, SEARCH, CONTAINED, URN)


@pytest.mark.parametrize(
    ("function", "accepted"),
    [
        (references.exact_target, {RELATIVE}),
        (references.versioned_target, {RELATIVE, VERSION}),
        (references.relative_target, {RELATIVE, VERSION, FRAGMENT, QUERY}),
        (references.type_at_end, {RELATIVE, VERSION, ABSOLUTE}),
        (references.written_type, {RELATIVE, VERSION, FRAGMENT, ABSOLUTE, SEARCH}),
    ],
)
def test_each_function_accepts_exactly_the_forms_of_its_table(function: Callable[[str], Any], accepted: set[str]) -> None:
    assert {text for text in ALL if function(text) is not None} == accepted


@pytest.mark.parametrize("text", [RELATIVE, VERSION, FRAGMENT, QUERY, ABSOLUTE, f"{BASE}/Patient/1/_history/2"])
def test_base_version_and_rest_are_removed(text: str) -> None:
    assert references.without_base(text, BASE) == RELATIVE


@pytest.mark.parametrize("text", ["https://other.example/fhir/Patient/1", CONTAINED, URN])
def test_other_references_are_not_local(text: str) -> None:
    assert not references.is_local(references.without_base(text, BASE))
    assert references.is_local(references.without_base(ABSOLUTE, BASE))  # the control


@pytest.mark.parametrize("text", ["Patients/1", "patient/1", "Patient/", "Patient/a_b", "Patient/" + "a" * 65])
def test_unknown_types_and_invalid_ids_are_not_local(text: str) -> None:
    assert not references.is_local(text)
