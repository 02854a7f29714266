"""Resources that mean nothing, or are not valid, without another one: who does not see the other one does not see them.

They take over its labels, release date and patients, and their visibility class names its data class.  A restriction of single resources is
no part of a class: for it they have an index entry for each resource on which they depend, directly or through others.
"""

from __future__ import annotations

from fhir_server.consent.decision import own_parameters
from fhir_server.consent.element_labels import Cut, join_elements
from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.labeling_run import LabelingRun, patient_ids
from fhir_server.consent.visibility_classes import WITHHELD, with_target
from fhir_server.resources import COMMON_DATA_CLASSES, catalog, elements
from fhir_server.search import index


async def take_over(run: LabelingRun, cut: Cut) -> None:
    """Take over what ``cut`` says of the resource as a whole, and what its declaration says that it depends on."""
    run.labels |= cut.labels
    named = {elements.target_of(value) for _, _, value in elements.located(run.resource, run.type.depends_on)}
    names = sorted({"/".join(target) for target in named if target} | cut.targets)
    for name in names:
        await _depend_on(run, *name.split("/"))
    for element in (cut.element, *run.needed_classes):
        run.element = join_elements(run.element, element)


async def _depend_on(run: LabelingRun, type: str, id: str) -> None:
    if type == "Patient":
        if run.type.name != "Binary":
            run.patients = tuple(sorted({*run.patients, id}))
        return
    declared = catalog().get(type)
    if declared is not None and declared.data_class in COMMON_DATA_CLASSES:
        return
    run.depends_on.add(f"{type}/{id}")
    run.label_sources.add(f"{type}/{id}")
    source = await run.lookup(type, id) if declared is not None else None
    if source is None:
        run.needed_classes.add(with_target("", WITHHELD, type))
        return
    run.labels |= source.key.labels
    run.release = max(run.release, source.release_at)
    run.patients = tuple(sorted({*run.patients, *(patient for body in await source.bodies() for patient in patient_ids(type, body))}))
    run.depends_on |= {*source.depends_on}
    if source.key.data != run.data:
        run.needed_classes.add(with_target("", source.key.data, type))
        _name_owners(run, type, id, source)


def _name_owners(run: LabelingRun, type: str, id: str, source: LabelSource) -> None:
    """Note whom the other resource names, if the policy shows resources of its data class only to who is named in them."""
    params = own_parameters(run.labeler.policy, source.key.data)
    if params and run.owners:
        # The entries do not say which of two resources names whom, so only who needs no entries sees a resource that depends on both.
        alike = run.owner_classes == {source.key.data}
        run.needed_classes.add(with_target("", source.key.data if alike else WITHHELD, f"{type}+" if alike else type))
    if params:
        run.owner_classes.add(source.key.data)
    for param in params:
        named = (f"{type}/{id}",) if param == "_id" else index.targets(type, param, source.body, run.labeler.base)
        run.owners |= {(param, name) for name in named}
