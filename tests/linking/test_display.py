from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.linking.display import SECTIONS, Line, build_line
from fhir_server.web import dates
from tests.linking.environment import Worlds

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


def test_quantity_keeps_its_decimal_digits() -> None:
    observation = {
        "resourceType": "Observation",
        "code": {"coding": [{"code": "2823-3", "display": "Potassium"}]},
        "valueQuantity": {"value": Decimal("4.10"), "unit": "mmol/L"},
        "effectivePeriod": {"start": "2026-03-04T05:06:07+01:00"},
    }
    assert build_line(observation) == Line("Potassium", "4.10 mmol/L", "2026-03-04")


def test_lists_are_cut_to_five_values_and_text_to_300_characters() -> None:
    team = {
        "resourceType": "CareTeam",
        "name": "n" * 1000,
        "participant": [{"member": {"display": f"Dr. {i}"}} for i in range(9)],
    }
    shown = build_line(team)
    assert len(shown.what) == 300
    assert shown.detail == "Dr. 0, Dr. 1, Dr. 2, Dr. 3, Dr. 4"


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_unexpected_remote_values_become_plain_text(type: str, junk: Any) -> None:
    shown = build_line({"resourceType": type} | dict.fromkeys(PLACES, junk))
    assert shown.what
    assert all(isinstance(text, str) for text in (shown.what, shown.detail, shown.when))


def test_message_is_displayed_by_its_text() -> None:
    message = {"resourceType": "Communication", "payload": [{"contentString": "May I take ibuprofen?"}], "sent": "2026-10-20T09:00:00Z"}
    assert build_line(message) == Line("May I take ibuprofen?", "", "2026-10-20")
    assert build_line(message | {"topic": {"text": "Medicines"}}).detail == "Medicines"


def test_linked_pages_format_every_date_in_words(worlds: Worlds) -> None:
    pages = (worlds.linked(), "/links")
    texts = [worlds.ours.http.get(page).text for page in pages]
    told = dates.format_instant_date(worlds.clock(), worlds.ours.smart.zone)
    assert all(f"inked on {told}" in text for text in texts)
    assert "2 January 2026" in texts[0]
    assert not [found for text in texts for found in re.findall(r"\d{4}-\d\d(?:-\d\d)?", text)]
