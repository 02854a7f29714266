from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from fhir_server.linking.shown import SECTIONS, Line, line

TYPES = [type for types in SECTIONS.values() for type in types]
JUNK: list[Any] = [
    None,
    True,
    7,
    "text",
    [],
    {},
    [[{}]],
    {"coding": 3},
    {"coding": [None, {"display": 5}]},
    {"value": "x"},
    [{"text": ["y"]}],
]
PLACES = ("code", "type", "medicationCodeableConcept", "period", "participant", "valueQuantity", "status", "start", "dosage")


def test_a_quantity_keeps_its_digits() -> None:
    observation = {
        "resourceType": "Observation",
        "code": {"coding": [{"code": "2823-3", "display": "Potassium"}]},
        "valueQuantity": {"value": Decimal("4.10"), "unit": "mmol/L"},
        "effectivePeriod": {"start": "2026-03-04T05:06:07+01:00"},
    }
    assert line(observation) == Line("Potassium", "4.10 mmol/L", "2026-03-04")


def test_several_values_are_listed_and_long_ones_cut() -> None:
    team = {
        "resourceType": "CareTeam",
        "name": "n" * 1000,
        "participant": [{"member": {"display": f"Dr. {i}"}} for i in range(9)],
    }
    shown = line(team)
    assert len(shown.what) == 300
    assert shown.detail == "Dr. 0, Dr. 1, Dr. 2, Dr. 3, Dr. 4"


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_whatever_another_system_sends_becomes_plain_text(type: str, junk: Any) -> None:
    shown = line({"resourceType": type} | dict.fromkeys(PLACES, junk))
    assert shown.what
    assert all(isinstance(text, str) for text in (shown.what, shown.detail, shown.when))
