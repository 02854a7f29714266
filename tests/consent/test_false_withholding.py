"""Usability: at most 5 % of Synthea records are unclassified (social history and surveys apart), and docs/policy.md has true shares."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fhir_server.consent.visibility_classes import UNCLASSIFIED
from tests.consent import usability
from tests.sample_data import SYNTHEA, needs_samples

KINDS = {"Observation": "Observations", "MedicationRequest": "medications", "Encounter": "visits"}
BUNDLES = usability.bundles()
pytestmark = needs_samples(SYNTHEA)


def test_at_most_five_percent_of_sample_is_unclassified(capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    unclassified: Counter[str] = Counter()
    sensitive: Counter[str] = Counter()
    work: Counter[tuple[str, str, str]] = Counter()
    for path in BUNDLES:
        for body, key in asyncio.run(usability.labeled(usability.resources(path))):
            kind, labels = KINDS.get(body["resourceType"]), key.labels
            if kind is None or key.data in ("social", "survey"):  # never ordinary, however common
                continue
            seen[kind] += 1
            sensitive[kind] += bool(labels - {UNCLASSIFIED})
            if UNCLASSIFIED in labels:
                unclassified[kind] += 1
                concept = body.get("code") or body.get("medicationCodeableConcept") or (body.get("type") or [{}])[0]
                coding = concept.get("coding", [{}])[0]
                work[kind, str(coding.get("code")), str(coding.get("display"))] += 1
    with capsys.disabled():
        print("\nunclassified in the Synthea sample (kind, code, display, how often):")
        for (kind, code, display), count in work.most_common():
            print(f"  {kind:13} {code:12} {display:60.60} {count:4}")
        print("  " + ", ".join(f"{kind}: {unclassified[kind]} unclassified, {sensitive[kind]} labelled of {seen[kind]}" for kind in seen))
    assert seen["Observations"] > 900 and seen["visits"] > 300 and seen["medications"] > 10
    for kind, total in seen.items():
        assert unclassified[kind] <= total * 0.05, kind


def test_published_shares_are_true_within_a_point() -> None:
    measured, published = usability.shares(BUNDLES), usability.published()
    assert {type: count for type, (count, _) in measured.items()} == {type: count for type, (count, _) in published.items()}
    for type, (_, row) in measured.items():
        assert all(abs(one - other) <= 1 for one, other in zip(row, published[type][1], strict=True)), type
