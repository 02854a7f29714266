"""A search by a patient is also one among the patient's rows, and every parameter that a type supports can be searched by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_server.consent.labeling_run import patient_ids
from fhir_server.errors import Problem
from fhir_server.resources import catalog
from fhir_server.search import index, query
from fhir_server.search.criteria import criterion
from fhir_server.search.filters import AllOf, OfPatient
from fhir_server.search.match import matches
from fhir_server.search.rows import SearchableRow
from fhir_server.writing.draft import parse_draft

BASE = "http://localhost:8000/fhir"
_SPELLINGS = (
    "Patient/a", "Patient/a/_history/2", f"{BASE}/Patient/a", f"{BASE}/Patient/a/_history/1", f"{BASE}//Patient/a", f"{BASE}/./Patient/a",
    "HTTP://LOCALHOST:8000/fhir/Patient/a", "https://localhost:8000/fhir/Patient/a", "http://user@localhost:8000/fhir/Patient/a",
    f"{BASE}/Patient/%61", f"{BASE}/Patient/a?x", f"{BASE}/Patient/a#x", f"{BASE}/Patient/a/_history/", "http://localhost/fhir/Patient/a",
    "Patient/a/", "/Patient/a", "Patient/a#x", "Patient/a?x=1", "Patient/a|2", "patient/a", "urn:uuid:2d1d2c3f-6f0e-4d6a-8f5c-1d0f3c1a2b3c",
)  # fmt: skip
_ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("subject", "subject", {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}),
    ("member", "member.entity", {"resourceType": "Group", "type": "person", "actual": True}),
    ("target", "target", {"resourceType": "Provenance", "recorded": "2020-01-01T00:00:00Z", "agent": [{"who": {"display": "x"}}]}),
    ("actor", "participant.actor", {"resourceType": "Appointment", "status": "proposed"}),
    ("patient", "link.target", {"resourceType": "Person"}),
    ("beneficiary", "beneficiary", {"resourceType": "Coverage", "status": "active", "payor": [{"display": "x"}]}),
)
_SAMPLES = {
    "date": "2026", "number": "1", "quantity": "1", "reference": "Patient/a", "special": "1|1", "string": "a", "token": "true",
    "uri": "urn:a",
}  # fmt: skip


def _draft(row: dict[str, Any], path: str, text: str) -> dict[str, Any] | None:
    """The row, with a reference at this path, as it is stored; None if it is refused."""
    first, _, second = path.partition(".")
    reference: Any = {"reference": text}
    repeats = first in ("member", "target", "participant", "link")
    value = {second: reference} | ({"status": "accepted"} if first == "participant" else {}) if second else reference
    try:
        return parse_draft(json.dumps({**row, first: [value] if repeats else value}).encode(), base=BASE).value
    except Problem:
        return None


@pytest.mark.parametrize(("param", "path", "row"), _ROWS, ids=lambda one: one if isinstance(one, str) else "")
def test_whatever_refers_to_the_patient_belongs_to_the_patient(param: str, path: str, row: dict[str, Any]) -> None:
    type = row["resourceType"]
    where = criterion(type, param, "Patient/a", 0, BASE)
    assert isinstance(where, AllOf) and where.parts[1] == OfPatient(frozenset({"a"}))
    alone = where.parts[0]
    found = 0
    for text in _SPELLINGS:
        value = _draft(row, path, text)
        if value is not None:
            entries = index.entries(type, value, BASE)
            stored = SearchableRow(type, "z", patient_ids(type, value), 0, 0, entries)
            assert matches(where, stored, frozenset({0}), None) == matches(alone, stored, frozenset({0}), None), text
            found += matches(where, stored, frozenset({0}), None)
    assert found >= 5


def test_every_parameter_of_every_type_can_be_searched_by() -> None:
    for type in catalog():
        for definition in index.supported(type):
            kinds = [kind for kind, _ in definition.components] if definition.kind == "composite" else [definition.kind]
            value = "$".join([_SAMPLES[kind] for kind in kinds])
            query.condition(type, [(definition.code, value)], now=0, base=BASE)
