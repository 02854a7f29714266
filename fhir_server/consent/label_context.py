"""Labels that a resource inherits from what it refers to (steps 6 to 8 of docs/policy.md, "How a resource is labeled")."""

from __future__ import annotations

from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.consent.departments import read_department
from fhir_server.consent.labeling_run import INHERITED, LabelingRun, patient_ids
from fhir_server.consent.visibility_classes import UNCLASSIFIED
from fhir_server.resources import elements


async def read_dependencies(run: LabelingRun) -> None:
    """Step 6: labels, release date and patients of the resources without which this one means nothing."""
    paths = elements.present(run.resource, run.type.depends_on)
    targets = [value for path in paths for _, value in elements.at(run.resource, path)]
    for value in targets:
        is_source, target = await run.target(value)
        if target is None:
            run.labels |= {UNCLASSIFIED} if is_source else set()
            continue
        run.labels |= target.key.labels
        run.release = max(run.release, target.release_at)
        name = elements.target_of(value)
        if name is not None:
            run.patients = tuple(sorted({*run.patients, *patient_ids(name[0], target.body)}))
        if run.type.name == "Binary":
            run.data = target.key.data
    if run.type.name == "Binary" and not targets:
        run.labels.add(UNCLASSIFIED)


async def read_context(run: LabelingRun) -> None:
    """Step 7: categories of the context."""
    for path in elements.present(run.resource, run.type.inherits_labels_from):
        for _, value in elements.at(run.resource, path):
            is_source, target = await run.target(value)
            if target is not None:
                run.labels |= target.key.labels & INHERITED
            elif is_source:
                run.labels.add(UNCLASSIFIED)


async def read_departments(run: LabelingRun) -> None:
    """Step 8: departments."""
    for path in elements.present(run.resource, run.type.departments):
        for _, value in elements.at(run.resource, path):
            name = elements.target_of(value)
            if name is None or name[0] not in DEPARTMENTS:
                continue
            department = await read_department(run.codes, *name, run.look_up_source)
            run.labels |= department.labels
            if not department.is_classified and run.data == "visit":
                run.labels.add(UNCLASSIFIED)
