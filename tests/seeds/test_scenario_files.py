"""Each scenario lists every resource of its patient.

A file of ``tests/scenarios`` describes one persona and one patient.  ``types`` lists, for each type, the ids that the
persona ``sees`` and the ids that are ``withheld``.  ``redacted`` maps a visible resource to elements that must be absent.
``unmentioned`` maps a visible resource to text that it must not contain.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .seed_data import ROOT, patients, rows

SEEDS = rows()
SCENARIOS = sorted((ROOT / "tests/scenarios").glob("*.yaml"))
PROMISED = {
    "adult": ["adult", "teen"],
    "parent-a": ["child", "teen", "newly-adult"],
    "parent-b": ["child", "teen", "newly-adult"],
    "newly-adult": ["newly-adult"],
    "proxy-standard": ["adult", "teen"],
    "proxy-full": ["adult"],
    "clinician": ["adult", "teen", "child", "senior"],
    "billing": ["adult"],
    "backend": ["adult", "teen", "child", "newly-adult", "senior"],
}


def load(path: Path) -> dict[str, Any]:
    scenario: dict[str, Any] = yaml.safe_load(path.read_text())
    return scenario


def test_every_persona_and_patient_has_a_scenario() -> None:
    assert {path.stem for path in SCENARIOS} == {f"{who}__{whose}" for who, those in PROMISED.items() for whose in those}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_is_named_for_its_persona_and_patient(path: Path) -> None:
    scenario = load(path)
    assert path.stem == f"{scenario['persona']}__{scenario['patient']}"
    assert scenario["why"].strip()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_classifies_every_resource_of_its_patient(path: Path) -> None:
    scenario = load(path)
    expected: dict[str, list[str]] = {}
    for row in SEEDS.values():
        if scenario["patient"] in patients(row, SEEDS):
            expected.setdefault(row["resourceType"], []).append(row["id"])
    sorted_out = {kind: sorted(lists["sees"] + lists["withheld"]) for kind, lists in scenario["types"].items()}
    assert sorted_out == {kind: sorted(ids) for kind, ids in expected.items()}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_redacted_content_exists_in_the_seed_resource(path: Path) -> None:
    scenario = load(path)
    seen = {f"{kind}/{row}" for kind, lists in scenario["types"].items() for row in lists["sees"]}
    assert set(scenario["redacted"]) | set(scenario["unmentioned"]) <= seen
    for name, elements in scenario["redacted"].items():
        assert set(elements) <= set(SEEDS[name]), name
    for name, texts in scenario["unmentioned"].items():
        body = json.dumps(SEEDS[name], default=str)
        assert all(text in body for text in texts), name
