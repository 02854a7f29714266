"""The demo people made for US Core: their rows have the labels that they should, and all clinical rows have a Provenance."""

from __future__ import annotations

import asyncio
from functools import cache, partial

from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.labeling import LabelingResult
from tests.served import Served

from .seed_data import ROOT as PROJECT
from .seed_data import bundle, references, rows

PATH = PROJECT / "seed_bundles/80-us-core.json"
SENSITIVE = {
    "Observation/us-core-adult-pregnancy-status": {"PREG"},
    "Observation/us-core-adult-pregnancy-intent": {"PREG", "UNCLASSIFIED"},
    "Observation/us-core-adult-sexual-orientation": {"REPRO"},
    "Group/us-core-family-medicine": {"MIXED"},
    "Media/us-core-adult-chest-x-ray-image": {"UNREAD"},
}
# No list of ordinary codes has social history, screenings, their consequences, or wishes, so proxies do not see them.
UNKNOWN = {
    "CarePlan": {"blood-pressure-plan"}, "Condition": {"food-insecurity"}, "Device": {"pacemaker"}, "DocumentReference": {"living-will"},
    "Goal": {"food-goal"}, "Procedure": {"food-assessment"}, "QuestionnaireResponse": {"food-screening-form"},
    "ServiceRequest": {"food-referral"},
    "Observation": {
        "tobacco", "pack-years", "occupation", "treatment-preference", "care-preference", "advance-directive", "food-screening-panel",
        "food-screening", "walking", "food-access",
    },
}  # fmt: skip


@cache
def labels() -> dict[str, LabelingResult]:
    """The labels of all seed rows, once each has seen those that it refers to."""
    served, seeds = Served(seeds=False), rows()
    found: dict[str, LabelSource] = {}
    results: dict[str, LabelingResult] = {}

    async def lookup(type: str, id: str) -> LabelSource | None:
        return found.get(f"{type}/{id}")

    async def run() -> None:
        for _ in range(3):
            for name, row in seeds.items():
                results[name] = made = await served.parts.labeler.label(row["resourceType"], row, lookup)
                found[name] = LabelSource(made.key, made.release_at, partial(dict, row))

    asyncio.run(run())
    served.close()
    return results


def test_rows_of_these_people_have_the_labels_of_their_content() -> None:
    own = [entry["request"]["url"] for entry in bundle(PATH)["entry"] if entry["resource"]["resourceType"] != "Provenance"]
    unknown = {f"{type}/us-core-adult-{id}": {"UNCLASSIFIED"} for type, ids in UNKNOWN.items() for id in ids}
    assert {name: set(labels()[name].key.labels) for name in own if labels()[name].key.labels} == unknown | SENSITIVE


def test_provenance_of_ordinary_rows_names_no_row_that_is_withheld_from_others() -> None:
    """A Provenance has the labels of all its targets, so one for rows of both kinds would be withheld for each of them."""
    entries = [entry["resource"] for entry in bundle(PATH)["entry"] if entry["resource"]["resourceType"] == "Provenance"]
    for entry in entries:
        targets = {target["reference"]: bool(labels()[target["reference"]].key.labels) for target in entry["target"]}
        assert len(set(targets.values())) == 1, (entry["id"], targets)


def test_each_clinical_row_has_a_provenance() -> None:
    value = bundle(PATH)["entry"]
    named = {name for entry in value if entry["resource"]["resourceType"] == "Provenance" for name in references(entry["resource"])}
    others = {"Provenance", "Group", "Medication", "Binary"}
    clinical = {entry["request"]["url"] for entry in value if entry["resource"]["resourceType"] not in others}
    assert clinical - named == set()
