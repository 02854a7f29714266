"""Parts that disclose other resources: members, summaries, references (steps 10 and 15 of docs/policy.md, "How a resource is labeled")."""

from __future__ import annotations

from fhir_server.consent.labeling_run import SUMMARY, LabelingRun
from fhir_server.resources import catalog, elements
from fhir_server.store import GuardedReference


async def read_members(run: LabelingRun) -> None:
    """Step 10: members."""
    for path in elements.present(run.resource, run.type.member_references):
        for location, value in elements.at(run.resource, path):
            _, target = await run.target(value)
            if target is None:
                continue
            item = location[:2] if len(location) > 1 and isinstance(location[1], int) else location[:1]
            run.label_part(item, target.key.labels)
            # The summary discloses a result that is not yet released.
            if run.data in ("lab", "imaging") and run.resource.keys() & SUMMARY:
                run.release = max(run.release, target.release_at)


def guarded_references(run: LabelingRun) -> tuple[GuardedReference, ...]:
    """Step 15: all references, except those to the directory, those that show their target, and those to the only patient."""
    found = []
    for mention in run.mentions:
        path, target = mention.path, mention.target
        declared = catalog().get(target[0]) if target else None
        if target is None or (declared is not None and declared.data_class == "directory"):
            continue
        if declared is not None and run.type.name in {type for type, _ in declared.seen_through} and path[0] == "medicationReference":
            continue
        if target[0] == "Patient" and run.patients == (target[1],):
            continue
        # The item of an array that refers to another patient is withheld whole: it says more about that patient.
        is_patient_item = target[0] == "Patient" and len(path) > 2 and isinstance(path[1], int)
        removed = path[:2] if is_patient_item else elements.removal_path(run.type.name, path)
        found.append(GuardedReference(removed, "/".join(target)))
    return tuple(found)
