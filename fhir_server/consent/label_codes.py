"""Labels from the codes of a resource (steps 3, 4, 5 and 9 of docs/policy.md, "How a resource is labeled")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_server.consent import security_labels
from fhir_server.consent.code_reading import CodeReading, read
from fhir_server.consent.labeling_run import LabelingRun
from fhir_server.consent.visibility_classes import HELD, UNCLASSIFIED
from fhir_server.jsontext import Path
from fhir_server.resources import ResourceType, catalog, elements

# Data classes whose resources must be classified.
_MUST_BE_CLASSIFIED: Final = frozenset({"lab", "imaging", "vitals", "medication", "medication-definition", "visit", "condition"})
# Elements whose items are labeled as parts: the components of a panel, the members of a team.
_LABELED_ITEMS: Final = frozenset({"component", "participant"})


def read_codes(run: LabelingRun, resource: Mapping[str, Any], declared: ResourceType) -> None:
    """Step 3: codes and keywords of coded elements."""
    for path in elements.present(resource, declared.label_codes + declared.must_be_classified):
        for location, value in elements.at(resource, path):
            reading = read(run.codes, value)
            if run.labeler.is_on_hold(reading):
                run.labels.add(HELD)
            if location[0] in _LABELED_ITEMS and resource is run.resource:
                _label_item(run, location[:2], path, reading)
            else:
                run.labels |= reading.labels
                run.possible |= reading.possible


def _label_item(run: LabelingRun, location: Path, path: str, reading: CodeReading) -> None:
    labels = set(reading.labels)
    if path == "component.code" and not reading.classified and run.data in _MUST_BE_CLASSIFIED:
        labels.add(UNCLASSIFIED)
    run.label_part(location, labels)


def read_contained(run: LabelingRun) -> None:
    """Step 4: contained resources."""
    for inner in run.resource.get("contained", ()):
        declared = catalog().get(str(inner.get("resourceType")))
        if declared is None:
            run.labels.add(UNCLASSIFIED)
            continue
        run.labels |= security_labels.labels(inner)
        read_codes(run, inner, declared)


def read_status(run: LabelingRun) -> None:
    """Step 5: status."""
    hidden = run.type.hidden_status
    verification = {str(coding.get("code")) for _, coding in elements.at(run.resource, "verificationStatus.coding")}
    if run.resource.get("status") in hidden or "entered-in-error" in verification:
        run.labels.add(HELD)


async def require_classification(run: LabelingRun) -> None:
    """Step 9: a resource whose kind has no known code, or that has no code, is unclassified."""
    identifying = run.type.must_be_classified or tuple(path for path in ("code",) if path in run.type.label_codes)
    if not identifying or run.data not in _MUST_BE_CLASSIFIED:
        return
    known = []
    for path in elements.present(run.resource, identifying):
        for _, value in elements.at(run.resource, path):
            if isinstance(value, dict) and "reference" in value:
                known.append(await _has_known_code(run, value))
            else:
                known.append(read(run.codes, value).classified)
    if not known or not all(known):
        run.labels.add(UNCLASSIFIED)


async def _has_known_code(run: LabelingRun, value: Mapping[str, Any]) -> bool:
    """Whether the resource that is referred to (such as a Medication, contained or not) has a known code."""
    if str(value["reference"]).startswith("#"):
        bodies = [inner for inner in run.resource.get("contained", ()) if f"#{inner.get('id')}" == value["reference"]]
    else:
        _, target = await run.target(value)
        bodies = [target.body] if target is not None else []
    return any(read(run.codes, concept).classified for body in bodies for _, concept in elements.at(body, "code"))
