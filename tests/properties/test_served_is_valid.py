"""Whatever is hidden, what remains of a resource is valid R4, and hiding it again changes nothing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.consent import required_elements
from fhir_server.consent.element_labels import NOTHING
from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.labeling import Labeler, LabelingResult
from fhir_server.consent.policy import load
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.resources import catalog, definitions, validate
from tests.properties.random_resources import IDS, Json, ResourceMaker

LABELER = Labeler(load("optum"), SensitivityCodes.load())
TYPES = [type for type in definitions.types() if catalog()[type].data_class != "directory" and type not in ("Bundle", "Parameters")]
LABELS = ("HIV", "PREG", "UNCLASSIFIED", "PHYHOLD")


class Caller:
    """Somebody from whom some labels, data classes, rows and elements are hidden."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.labels = {label for label in LABELS if draw.random() < 0.4}
        self.rows = {f"{type}/{id}": draw.random() < 0.25 for type in definitions.types() for id in IDS}
        self.lent = {name: {label for label in LABELS if draw.random() < 0.1} for name in self.rows}
        rules = [rule for rule in LABELER.policy.rules if rule.effect == "redact"]
        self.redact = draw.choice([None, *rules])

    async def lookup(self, type: str, id: str) -> LabelSource | None:
        declared = catalog()[type]
        body = {"resourceType": type, "id": id, "subject": {"reference": "Patient/p"}, "patient": {"reference": "Patient/p"}}
        key = VisibilityClass(declared.data_class, frozenset(self.lent[f"{type}/{id}"]))
        return LabelSource(key, 0, lambda: body)

    def is_hidden(self, target: str) -> bool:
        if target.startswith("Patient/"):
            return target != "Patient/p"
        return self.rows[target] or bool(self.labels & self.lent[target])

    def is_withheld(self, key: VisibilityClass) -> bool:
        names = key.element.partition("@")[0].split("+")
        rule = self.redact
        redacted = rule is not None and key.data in rule.data and not rule.elements.isdisjoint(names)
        return redacted or bool(self.labels & key.labels)

    def sees(self, found: LabelingResult) -> bool:
        depends = any(map(self.is_hidden, found.depends_on))
        return not (depends or self.is_withheld(found.key) or "MIXED" in found.key.labels or "@internal" in found.key.element)

    def remains(self, text: bytes, found: LabelingResult) -> bytes:
        cut = [path for path, key in found.labeled_elements if self.is_withheld(key)]
        cut += [reference.path for reference in found.guarded_references if self.is_hidden(reference.target)]
        return jsontext.remove_paths(text, cut)


def label(resource: Json, caller: Caller) -> LabelingResult:
    return asyncio.run(LABELER.label(resource["resourceType"], resource, caller.lookup))


def examine(seeds: range) -> dict[str, int]:
    """Make resources of all types and hide parts of them; by type, how many lost a part and were seen."""
    cut: dict[str, int] = {}
    for seed in seeds:
        for type in TYPES:
            made = ResourceMaker(seed * 1009 + len(type)).valid(type)
            if made is None:
                continue
            resource: Any = jsontext.parse(jsontext.dumps(made))
            caller = Caller(seed * 31 + len(type))
            found = label(resource, caller)
            if not caller.sees(found):
                continue
            whole = jsontext.dumps(resource)
            left = caller.remains(whole, found)
            remaining = jsontext.parse(left)
            issues = validate.check(type, remaining)
            assert not issues, (issues, seed, whole, left)
            again = label(remaining, caller)
            assert caller.sees(again) and caller.remains(left, again) == left, (seed, whole, left)
            cut[type] = cut.get(type, 0) + (left != whole)
    return cut


def test_what_is_served_is_valid_whatever_is_hidden() -> None:
    cut = examine(range(6))
    assert sum(cut.values()) > 100 and sum(1 for number in cut.values() if number) > 40, cut


def test_property_finds_a_missing_lift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(required_elements, "lift", lambda *_: NOTHING)
    with pytest.raises(AssertionError, match="Issue"):
        examine(range(6))
