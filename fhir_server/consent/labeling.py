"""Labels a resource: computes its visibility class and those of its parts from the resource and what it refers to.

The result depends neither on time nor on the caller. A resource inherits categories from its context (visit -> result). Labels of its
members become labels of the elements that refer to them (report -> result). The steps are those of docs/policy.md, "How a resource
is labeled"; comments give their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.consent import (
    common_rows,
    element_reading,
    label_bills,
    label_codes,
    label_context,
    label_dependencies,
    label_members,
    label_text,
    required_elements,
)
from fhir_server.consent.code_reading import CodeReading
from fhir_server.consent.contained import ContainedResources, label_fragments, read_contained
from fhir_server.consent.decision import redactable
from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.consent.element_labels import NOTHING, Cut
from fhir_server.consent.label_entries import read_entries
from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.labeling_run import INHERITED, LabelingRun, Lookup, Referrers, patient_ids
from fhir_server.consent.policy import Policy
from fhir_server.consent.sensitivity_codes import SensitivityCodes, normalize_code
from fhir_server.consent.visibility_classes import MIXED, PSYNOTE, SPECIFIC, UNCLASSIFIED, UNRESOLVED, VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.resources import COMMON_DATA_CLASSES, catalog
from fhir_server.store import GuardedReference

__all__ = ["LabelSource", "Labeler", "LabelingResult", "patient_ids"]


@dataclass(frozen=True, slots=True)
class LabelingResult:
    """The labels of a resource.

    ``patients``            ids of the patients it is about
    ``key``                 its visibility class
    ``release_at``          its release date, in microseconds since 1970 UTC (0: none)
    ``labeled_elements``    (path, class) of the parts with a class of their own
    ``guarded_references``  references that a caller sees only with their target
    ``label_sources``       the ``Type/id`` of the resources it inherits from: it must be labeled again when one changes
    ``depends_on``          the ``Type/id`` of the resources without which it is not visible
    ``owners``              (search parameter, ``Type/id``) by which one of these names who may see it
    """

    patients: tuple[str, ...]
    key: VisibilityClass
    release_at: int
    labeled_elements: tuple[tuple[Path, VisibilityClass], ...]
    guarded_references: tuple[GuardedReference, ...]
    label_sources: tuple[str, ...]
    depends_on: tuple[str, ...] = ()
    owners: tuple[tuple[str, str], ...] = ()

    def row_guards(self) -> tuple[GuardedReference, ...]:
        """All guards to store with the row: of its parts, and of the row itself."""
        return (*self.guarded_references, *(GuardedReference((), target) for target in self.depends_on))


class Labeler:
    """Labels resources by a policy and the lists of sensitive codes; ``base`` is the server's FHIR base URL."""

    def __init__(self, policy: Policy, codes: SensitivityCodes, base: str = "") -> None:
        self.policy = policy
        self.codes = codes
        self.base = base
        self._holds = frozenset(normalize_code(*hold) for hold in policy.holds)

    def propagates_labels(self, type: str) -> bool:
        """Whether a resource can inherit labels from resources of this type."""
        declared = catalog().get(type)
        if declared is None or declared.data_class == "demographics":
            return False
        return declared.data_class != "directory" or type in DEPARTMENTS

    async def label(self, type: str, resource: Mapping[str, Any], lookup: Lookup, referrers: Referrers | None = None) -> LabelingResult:
        """Label a parsed resource.

        ``lookup`` returns what a (type, id) lends, or None if it never existed.  ``referrers`` finds the resources that refer to this
        one; without it, labels of resources that name this one are left out.
        """
        declared = catalog()[type]
        if declared.data_class == "directory":
            reading = element_reading.read_mentions(resource, self.base)
        else:
            reading = element_reading.read(type, resource, self.base)
        contained = ContainedResources(resource, reading.fragments, _read)
        return await _label(LabelingRun(self, declared, resource, reading, lookup, contained, referrers))

    def is_on_hold(self, reading: CodeReading) -> bool:
        """Whether a code is on the institution's hold list."""
        return not self._holds.isdisjoint(reading.codes)


async def _label(run: LabelingRun) -> LabelingResult:
    if run.data == "directory":
        return _directory_result(run)
    await _read(run)
    label_fragments(run)
    label_members.read_balance(run)
    label_members.guard_references(run)
    run.parts.add_redactable(run.resource, redactable(run.labeler.policy, run.data))
    label_members.join_summaries(run)
    given = Cut(frozenset(run.labels), "", run.own_patients)
    lifted = required_elements.lift(run.type.name, run.resource, run.parts, given, run.contained.fragments)
    await label_dependencies.take_over(run, lifted)
    _complete(run)
    key = VisibilityClass(run.data, frozenset(run.labels), run.element)
    return LabelingResult(
        run.patients, key, run.release, run.parts.labeled_elements(key), run.parts.guarded_references(),
        tuple(sorted(run.label_sources)), tuple(sorted(run.depends_on)), tuple(sorted(run.owners)),
    )  # fmt: skip


async def _read(run: LabelingRun) -> None:
    """Read the labels of a resource and of its parts; steps 1 and 2 are those of LabelingRun itself."""
    if run.data == "directory":  # as a contained resource
        run.labels |= (await run.own_department()).labels if run.type.name in DEPARTMENTS else set()
        return
    label_codes.read_codes(run)
    label_codes.read_status(run)
    await label_context.read_dependencies(run)
    await read_contained(run)
    await read_entries(run)
    await label_context.read_context(run)
    await label_context.read_departments(run)
    await label_context.read_referrers(run)
    await label_codes.require_classification(run)
    label_context.read_doubt(run)
    await label_members.read_members(run)
    await label_bills.read_answered_lines(run)
    await label_context.read_pointers(run)
    label_text.read_free_text(run)
    label_members.read_logical_references(run)
    if run.data in COMMON_DATA_CLASSES and (run.parts.has_labels or common_rows.is_specific(run.resource)):
        run.labels.add(SPECIFIC)
    _complete(run)
    run.parts.label_narrative(run.resource)


IF_PSYNOTE: Final = {"note": "psynote"}
"""Data class -> that of rows with the label ``PSYNOTE``."""


def _complete(run: LabelingRun) -> None:
    """Add the labels that follow from the patients, the data class and the other labels."""
    if run.type.shared_rows == "all" and len(run.patients) > 1:
        run.labels.add(MIXED)
    if PSYNOTE in run.labels:
        run.data = IF_PSYNOTE.get(run.data, run.data)
    if run.labels & INHERITED:  # step 13: the second signal for ambiguous codes
        run.labels |= run.possible
    if UNRESOLVED in run.labels:
        run.labels.add(UNCLASSIFIED)


def _directory_result(run: LabelingRun) -> LabelingResult:
    """The labels of a directory resource: none, but it may refer to resources that some callers do not see."""
    label_members.guard_references(run)
    guards = run.parts.guarded_references()
    required = required_elements.lift(run.type.name, run.resource, run.parts, NOTHING, run.contained.fragments)
    # The directory is the same for all: what it cannot do without is removed all the same.
    guarded = run.parts.guarded_references() if not required.targets else guards
    return LabelingResult((), VisibilityClass("directory"), 0, (), guarded, ())
