"""Parts that disclose other resources: references, members, summaries (steps 10 and 15 of docs/policy.md, "How a resource is labeled").

What hides a member, a label or anything else, hides the reference to it and all that sums it up.  A label becomes a label of these
parts; against everything else they are guarded by the member itself: a caller sees them only with the member.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

from fhir_server.consent.labeling_run import SUMMARY, LabelingRun
from fhir_server.consent.visibility_classes import MC, UNCLASSIFIED
from fhir_server.jsontext import Path
from fhir_server.resources import COMMON_DATA_CLASSES, catalog, definitions, elements
from fhir_server.resources.references import Target

# The account's balance sums up charges that refer to the account; which of them a caller sees is not known to the account.
_BALANCE: Final = "/StructureDefinition/account-balance"
_UNKNOWN_CHARGES: Final = frozenset({UNCLASSIFIED, MC})
# Data classes of resources whose existence is no secret.
_OPEN: Final = COMMON_DATA_CLASSES | {"demographics", "coverage", "related-person"}
# Lists of a bill by number -> the members of its lines that name these numbers.
_NUMBERED: Final = {"diagnosis": "diagnosisSequence", "procedure": "procedureSequence", "supportingInfo": "informationSequence"}


async def read_members(run: LabelingRun) -> None:
    """Step 10: members."""
    for _, location, value in elements.located(run.resource, run.type.member_references):
        named = elements.target_of(value)
        if named is not None and _is_guarded(run, location, named):
            for part in (_item(location), *_summaries(run, location)):
                run.parts.guard(part, "/".join(named))
        _, target = await run.target(value)
        if target is None:
            continue
        if target.key.labels:
            for part in (_item(location), *_summaries(run, location)):
                run.parts.add(part, target.key.labels)
        # The summary discloses a result that is not yet released.
        if run.data in ("lab", "imaging") and run.resource.keys() & SUMMARY:
            run.release = max(run.release, target.release_at)


def read_logical_references(run: LabelingRun) -> None:
    """Step 15: a reference by identifier or name alone may name a hidden resource: it is a part that nobody has classified.

    Names of people, places, coverages and others whose existence is no secret stay.
    """
    hideable, paths = _hideable_references(run.type.name)
    for path, location, value in elements.located(run.resource, paths):
        if not isinstance(value, dict) or "reference" in value or not value.keys() & {"identifier", "display", "type"}:
            continue
        targets = hideable[path]
        if value.get("type", "") in targets or "type" not in value or "Resource" in targets:
            parts = (_item(location), *_summaries(run, location)) if path in run.type.member_references else (location,)
            for part in parts:
                run.parts.add(part, {UNCLASSIFIED})


@functools.cache
def _hideable_references(type: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The paths of references that lead to clinical content only -> the types that they may lead to; the paths, without subjects."""
    found = {path: targets for path, targets in definitions.references(type).items() if not any(map(_is_open, targets))}
    # Sections are nested; so are their entries.
    found |= {f"{'section.' * depth}entry": ("Resource",) for depth in range(2, 5) if type == "Composition"}
    return found, tuple(path for path in found if path not in catalog()[type].subjects)


def _is_open(type: str) -> bool:
    declared = catalog().get(type)
    return declared is not None and declared.data_class in _OPEN


def guard_references(run: LabelingRun) -> None:
    """Step 15: all references, except those to the directory, those that show their target, and those to the only patient."""
    for path, target in run.reading.mentions:
        if target is None or not _is_guarded(run, path, target):
            continue
        # The item of an array that refers to another patient is withheld whole: it says more about that patient.
        is_patient_item = target[0] == "Patient" and len(path) > 2 and isinstance(path[1], int)
        run.parts.guard(path[:2] if is_patient_item else path, "/".join(target))


def read_balance(run: LabelingRun) -> None:
    """The balance of an account is withheld from everybody from whom some charge might be hidden."""
    if run.type.name == "Account":
        for number, extension in enumerate(run.resource.get("extension", ())):
            if str(extension.get("url", "")).endswith(_BALANCE):
                run.parts.add(("extension", number), _UNKNOWN_CHARGES)


def join_summaries(run: LabelingRun) -> None:
    """A line of a bill is removed with the diagnosis that it names, and the narrative with any part of the resource."""
    for path in run.parts.paths():
        if run.data == "billing" and len(path) == 2 and path[0] in _NUMBERED:
            for line in _lines(run, path):
                run.parts.add_cut(line, run.parts.cut(path))
    narratives: list[Path] = [("text",)] if "text" in run.resource else []
    narratives += [("contained", number, "text") for number, inner in enumerate(run.resource.get("contained", ())) if "text" in inner]
    for narrative in narratives:
        run.parts.add(narrative, run.parts.all_labels())
        for target in run.parts.all_targets():
            run.parts.guard(narrative, target)


def _is_guarded(run: LabelingRun, path: Path, target: Target) -> bool:
    declared = catalog().get(target[0])
    if declared is not None and declared.data_class == "directory":
        return False
    if declared is not None and run.type.name in {type for type, _ in declared.seen_through} and path[0] == "medicationReference":
        return False
    return not (target[0] == "Patient" and run.patients == (target[1],))


def _item(location: Path) -> Path:
    """The item that refers to a member; of nested sections, the entry alone."""
    if location[0] == "section":
        return location
    return location[:2] if len(location) > 1 and isinstance(location[1], int) else location[:1]


def _summaries(run: LabelingRun, location: Path) -> Iterator[Path]:
    """The parts that sum up the member at ``location``: of the resource, and the texts of the sections that hold it."""
    yield from run.summaries
    for length in range(2, len(location)):
        if location[length - 2] == "section":
            yield from ((*location[:length], name) for name in ("text",) if _has(run, location[:length], name))


def _has(run: LabelingRun, path: Path, name: str) -> bool:
    node: object = run.resource
    for step in path:
        node = node[step]  # type: ignore[index]
    return isinstance(node, dict) and name in node


def _lines(run: LabelingRun, path: Path) -> Iterator[Path]:
    """The lines of a bill that name the numbered item at ``path``."""
    name, position = str(path[0]), path[1]
    number = run.resource[name][position].get("sequence")
    for lines in ("item", "addItem"):
        for place, line in enumerate(run.resource.get(lines, ())):
            if number in line.get(_NUMBERED[name], ()):
                yield lines, place
