"""What our server knows of a resource type beyond HL7's definitions: one declaration a type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ResourceType:
    """The specifics of one R4 resource type; everything else about it is read from HL7's definitions.

    ``data_class``       what the policy calls data of this type, unless a ``by_category`` code says otherwise
    ``by_category``      category code -> data class, first match in the order given (Observation: laboratory, vital-signs, ...)
    ``by_status``        value of ``status`` -> data class of rows that no category decides (a Consent that has ended)
    ``subjects``         FHIRPath-like element paths of the persons who own a row; the *subject* decides, not who performed it
    ``several``          "all": a row of several patients is nobody's but a trusted caller's; "each": it is each one's own
    ``context``          element paths to rows whose sensitivity this row inherits (Encounter, order, department)
    ``coded``            element paths whose codings decide its labels; the *identifying* ones come first in ``knowing``
    ``knowing``          element paths of which at least one coding must be known ordinary, or the row is UNCLASSIFIED;
                         () for types that need no such knowledge
    ``members``          element paths to rows whose labels become labels of the element that names them (panel -> result)
    ``required``         element paths to rows without which this row makes no sense: it inherits their labels and release
    ``hidden_status``    values of ``status`` that no patient or proxy is shown (registered, preliminary, entered-in-error)
    ``departments``      element paths to departments (Location, HealthcareService, Organization) or coded service types
    """

    name: str
    data_class: str
    by_category: Mapping[str, str] = field(default_factory=dict)
    by_status: Mapping[str, str] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    shared_rows: Literal["all", "each"] = "all"
    inherits_labels_from: tuple[str, ...] = ()
    label_codes: tuple[str, ...] = ()
    must_be_classified: tuple[str, ...] = ()
    member_references: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    hidden_status: frozenset[str] = frozenset()
    departments: tuple[str, ...] = ()
