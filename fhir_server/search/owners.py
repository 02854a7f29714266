"""A search by a patient, such as ``subject=Patient/1``, is also one among the rows that belong to this patient.

Said so, a store begins with the patient's rows, whoever asks, and reads no row of another patient.
"""

from __future__ import annotations

from functools import cache

from fhir_server.resources import catalog
from fhir_server.search.expression import Branch, Member, WhereRefersTo, parse
from fhir_server.search.filters import AllOf, Filter, Has, OfPatient, RefersTo
from fhir_server.search.index import r4_parameters

_PATIENT = "Patient/"


def with_owners(type: str, condition: Filter) -> Filter:
    """The same condition, with the patients to whom the rows must belong that meet it, if it names patients by an owning parameter."""
    match condition:
        case Has(param, RefersTo(targets)) if targets and param in _owning(type) and all(map(_is_patient, targets)):
            return AllOf((condition, OfPatient(frozenset(target.removeprefix(_PATIENT) for target in targets))))
    return condition


def _is_patient(target: str) -> bool:
    return target.startswith(_PATIENT) and target.count("/") == 1


@cache
def _owning(type: str) -> frozenset[str]:
    """The parameters all of whose references are to patients who own the row (``subjects`` in the type's declaration)."""
    subjects = catalog()[type].subjects
    references = [one.definition for one in r4_parameters(type).values() if one.definition.kind == "reference"]
    return frozenset(one.code for one in references if all(_path(branch) in subjects for branch in parse(one.expression)))


def _path(branch: Branch) -> str:
    """The path of the elements; "" if the branch chooses among them by more than their type."""
    members = [step for step in branch if not isinstance(step, WhereRefersTo)]
    if not all(isinstance(step, Member) and step.cast is None for step in members):
        return ""
    return ".".join([step.name for step in members if isinstance(step, Member)])
