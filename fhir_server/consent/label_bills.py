"""Labels of the answers to a bill: a line of a ClaimResponse says of what line of the Claim it speaks by a number only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.consent import element_reading
from fhir_server.consent.code_reading import read
from fhir_server.consent.element_reading import item_of
from fhir_server.consent.label_codes import CODED, is_unknown
from fhir_server.consent.labeling_run import LabelingRun
from fhir_server.consent.visibility_classes import UNCLASSIFIED


async def read_answered_lines(run: LabelingRun) -> None:
    """Step 10: a line of a ClaimResponse has the labels of the line of the Claim that it answers."""
    if run.type.name != "ClaimResponse" or not run.resource.get("item"):
        return
    _, target = await run.target(run.resource.get("request"), "request")
    lines: dict[Any, set[str]] = {}
    for body in await target.bodies() if target is not None else ():
        for sequence, labels in _line_labels(run, body).items():
            lines.setdefault(sequence, set()).update(labels)
    for number, item in enumerate(run.resource["item"]):
        run.label_part(("item", number), lines.get(item.get("itemSequence"), set()))


def _line_labels(run: LabelingRun, claim: Mapping[str, Any]) -> dict[Any, set[str]]:
    """Sequence of a line -> its labels."""
    found: dict[Any, set[str]] = {}
    for value in element_reading.read(str(claim.get("resourceType")), claim).coded:
        if value.rule in CODED and value.up and value.path[0] == "item":
            reading = read(run.codes, value.value)
            unknown = value.rule != "marks" and is_unknown(reading, value.value)
            sequence = claim["item"][item_of(value.path, value.up)[1]].get("sequence")
            found.setdefault(sequence, set()).update(reading.labels | {UNCLASSIFIED} if unknown else reading.labels)
    return found
