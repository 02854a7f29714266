"""The declaration of a resource type: what the server must know of it that HL7's definitions do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

COMMON_DATA_CLASSES: Final = frozenset({"directory", "medication-definition"})
"""Data classes of resources that belong to no patient and are the same for every caller who may see them."""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """Declares one R4 resource type for the policy and for labeling (docs/policy.md).

    Element paths are written without the type's name: ``code``, ``participant.actor``, ``value[x]``.

    ``data_class``            the type's data class, unless a code of ``by_category`` or a status of ``by_status`` says otherwise
    ``by_category``           code in ``category``, ``type`` or ``code`` -> data class; the first match in this order decides
    ``by_status``             value of ``status`` -> data class, if no code decides
    ``by_source``             beginning of ``meta.source`` -> data class; it decides before codes and status
    ``subjects``              paths of the patients who own a resource: those it is about, not those who performed it
    ``shared_rows``           "all": a resource of several patients is labeled MIXED; "each": each patient sees it
    ``inherits_labels_from``  paths of references to resources whose categories this one inherits (visit, order, department)
    ``member_references``     paths of references to members: their labels become labels of the element that refers to them
    ``summaries``             elements that sum up the members, besides those of every type (conclusion, note, narrative ...)
    ``depends_on``            paths of references to resources without which this one means nothing: it takes over their labels,
                              release and patients
    ``inherits_from_referrers``  reference parameters ("Type.param"): it takes the labels and release dates of resources that name it there
    ``hidden_status``         values of ``status`` that give the label HELD, besides "entered-in-error" (:mod:`.statuses`)
    ``seen_through``          (type, search parameter) of references that show a row common to all patients: who sees such a row
                              sees the one it names (docs/policy.md, "Rows common to all patients")
    ``departments``           paths of departments, roles and practitioners whose category it inherits, or of their coded types
    """

    name: str
    data_class: str
    by_category: Mapping[str, str] = field(default_factory=dict)
    by_status: Mapping[str, str] = field(default_factory=dict)
    by_source: Mapping[str, str] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    shared_rows: Literal["all", "each"] = "all"
    inherits_labels_from: tuple[str, ...] = ()
    member_references: tuple[str, ...] = ()
    summaries: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    inherits_from_referrers: tuple[str, ...] = ()
    hidden_status: frozenset[str] = frozenset()
    departments: tuple[str, ...] = ()
    seen_through: tuple[tuple[str, str], ...] = ()
