"""False withholding is measured: at most 5 % of Synthea records are unclassified."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fhir_server.consent.labeling import Labeler, LabelSource
from fhir_server.consent.policy import load
from fhir_server.consent.sensitivity_codes import SensitivityCodes

BUNDLES = sorted((Path(__file__).parents[3] / "shared" / "data" / "synthea").glob("*.json.gz"))
KINDS = {"Observation": "Observations", "MedicationRequest": "medications", "Encounter": "visits"}
LABELLER = Labeler(load("optum"), SensitivityCodes.load())


def resources(path: Path) -> list[dict[str, Any]]:
    """Return the resources of a bundle, with literal references between them."""
    text = gzip.decompress(path.read_bytes()).decode()
    entries = json.loads(text)["entry"]
    for entry in entries:
        kind, id = entry["resource"]["resourceType"], entry["resource"]["id"]
        if "fullUrl" in entry:
            text = text.replace(f'"reference":"{entry["fullUrl"]}"', f'"reference":"{kind}/{id}"')
            text = text.replace(f'"reference": "{entry["fullUrl"]}"', f'"reference": "{kind}/{id}"')
    return [entry["resource"] for entry in json.loads(text)["entry"]]


async def labelled(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], frozenset[str]]]:
    known: dict[str, LabelSource] = {}
    bodies = {f"{row['resourceType']}/{row['id']}": row for row in rows}

    async def lookup(type: str, id: str) -> LabelSource | None:
        name = f"{type}/{id}"
        if name not in known and name in bodies:
            body = bodies.pop(name)
            found = await LABELLER.label(type, body, lookup)
            known[name] = LabelSource(found.key, found.release_at, lambda body=body: body)
        return known.get(name)

    for row in rows:
        await lookup(row["resourceType"], row["id"])
    return [(target.body, target.key.labels) for target in known.values()]  # type: ignore[misc]


@pytest.mark.skipif(not BUNDLES, reason="the Synthea bundles are not here")
def test_at_most_five_percent_of_sample_is_unclassified(capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    unclassified: Counter[str] = Counter()
    sensitive: Counter[str] = Counter()
    work: Counter[tuple[str, str, str]] = Counter()
    for path in BUNDLES:
        for body, labels in asyncio.run(labelled(resources(path))):
            kind = KINDS.get(body["resourceType"])
            if kind is None:
                continue
            seen[kind] += 1
            sensitive[kind] += bool(labels - {"UNCLASSIFIED"})
            if "UNCLASSIFIED" in labels:
                unclassified[kind] += 1
                concept = body.get("code") or body.get("medicationCodeableConcept") or (body.get("type") or [{}])[0]
                coding = concept.get("coding", [{}])[0]
                work[kind, str(coding.get("code")), str(coding.get("display"))] += 1
    with capsys.disabled():
        print("\nunclassified in the Synthea sample (kind, code, display, how often):")
        for (kind, code, display), count in work.most_common():
            print(f"  {kind:13} {code:12} {display:60.60} {count:4}")
        print("  " + ", ".join(f"{kind}: {unclassified[kind]} unclassified, {sensitive[kind]} labelled of {seen[kind]}" for kind in seen))
    assert seen["Observations"] > 1000 and seen["visits"] > 300 and seen["medications"] > 10
    for kind, total in seen.items():
        assert unclassified[kind] <= total * 0.05, kind
