"""Labels that a resource inherits from what it refers to (steps 6 to 8 of docs/policy.md, "How a resource is labeled")."""

from __future__ import annotations

from typing import Final

from fhir_server.consent.departments import TYPES as DEPARTMENT_TYPES
from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.labeling_run import INHERITED, LabelingRun, patient_ids
from fhir_server.consent.visibility_classes import UNCLASSIFIED, UNRESOLVED
from fhir_server.resources import elements

_IN_DOUBT: Final = frozenset({UNCLASSIFIED, UNRESOLVED})
# Resources of these data classes are the context of others: if their kind is unknown, so is that of what happened there.
_CONTEXTS: Final = frozenset({"visit", "slot"})
_DOCUMENTS: Final = frozenset({"note", "psynote", "letter", "endoflife"})


async def read_dependencies(run: LabelingRun) -> None:
    """Step 6: labels, release date and patients of the resources without which this one means nothing."""
    targets = elements.located(run.resource, run.type.depends_on)
    data_classes: set[str] = set()
    for path, _, value in targets:
        is_source, target = await run.target(value, path)
        if target is None:
            run.labels |= _IN_DOUBT if is_source else set()
            continue
        run.labels |= target.key.labels
        run.release = max(run.release, target.release_at)
        patients = {patient for body in await target.bodies() for patient in patient_ids(str(body["resourceType"]), body)}
        run.patients = tuple(sorted(patients.union(run.patients)))
        if run.type.name == "Binary":
            data_classes |= target.data_classes
            run.data = target.key.data
    if len(data_classes) > 1:
        # No class is known to be as protected as each of several, except that of the notes among documents.
        run.data = "note" if data_classes <= _DOCUMENTS else "internal"
    if run.type.name == "Binary" and not targets:
        run.labels.add(UNCLASSIFIED)


async def read_context(run: LabelingRun) -> None:
    """Step 7: categories of the context."""
    for path, _, value in elements.located(run.resource, run.type.inherits_labels_from):
        is_source, target = await run.target(value, path)
        if target is not None:
            run.labels |= inherited_labels(target)
        elif is_source:
            run.labels |= _IN_DOUBT


def inherited_labels(source: LabelSource) -> frozenset[str]:
    """The labels that a resource inherits from one in whose context it stands.

    An order or a diagnosis with an unknown code leaves its results to their own codes.
    """
    labels = source.key.labels & INHERITED
    return labels | _IN_DOUBT if UNRESOLVED in source.key.labels else labels


def read_doubt(run: LabelingRun) -> None:
    """Step 9: an unclassified visit leaves what happened there in doubt, unless it only lacks a code and its department is known."""
    if run.data in _CONTEXTS and UNCLASSIFIED in run.labels:
        has_code = any(value.rule == "kind" and not value.up for value, _ in run.kinds)
        if has_code or not run.has_known_department:
            run.labels.add(UNRESOLVED)


async def read_departments(run: LabelingRun) -> None:
    """Step 8: departments."""
    for path, _, value in elements.located(run.resource, run.type.departments):
        department = await run.department(value)
        if department is not None:
            run.labels |= department.labels
            run.has_known_department = run.has_known_department or department.known
        is_known = department.is_classified if department is not None else not run.names_unknown_place(value, path)
        if not is_known and run.data in _CONTEXTS:
            run.labels |= _IN_DOUBT


async def read_pointers(run: LabelingRun) -> None:
    """Step 8: a reference to a department, a role or a person of a sensitive specialty is a part with its category."""
    for path, target in run.reading.mentions:
        if target is not None and target[0] in DEPARTMENT_TYPES:
            department = await run.department("/".join(target))
            if department is not None and department.labels:
                run.parts.add(elements.removal_path(run.type.name, path), department.labels)


async def read_referrers(run: LabelingRun) -> None:
    """Step 7, upward: a specimen takes all labels and the release dates of the results that name it."""
    if run.referrers is None or not run.type.inherits_from_referrers:
        return
    for name, source in (await run.referrers(run.type.inherits_from_referrers)).items():
        run.label_sources.add(name)
        run.labels |= source.key.labels
        run.release = max(run.release, source.release_at)
