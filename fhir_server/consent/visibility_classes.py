"""Visibility classes: the properties of a resource, or of a part of one, on which the policy decides.

A class holds nothing that depends on time. Age, release and grants are evaluated for each request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CATEGORIES: Final = frozenset({"HIV", "STD", "DRUGTEST", "PAP", "PREG", "MH", "SUD", "SEXAB", "REPRO", "GENETIC"})
MC: Final = "MC"  # care to which a minor consented alone
PHYHOLD: Final = "PHYHOLD"  # withheld from the patient side at a clinician's request
UNCLASSIFIED: Final = "UNCLASSIFIED"  # without a known code
UNREAD: Final = "UNREAD"  # free text that the server cannot read, such as a PDF
UNRESOLVED: Final = "UNRESOLVED"  # in an unknown context; always together with UNCLASSIFIED
HELD: Final = "HELD"  # not final, entered in error, or on the hold list
MIXED: Final = "MIXED"  # about several patients, each of whom would see the others
PSYNOTE: Final = "PSYNOTE"  # psychotherapy note
SPECIFIC: Final = "SPECIFIC"  # a row common to all patients that holds more than known codes, so that it may tell of one patient
WITHHELD: Final = "internal"  # a data class that only callers who see everything see
LABELS: Final = CATEGORIES | {MC, PHYHOLD, UNCLASSIFIED, UNREAD, UNRESOLVED, HELD, MIXED, PSYNOTE, SPECIFIC}


@dataclass(frozen=True, slots=True)
class VisibilityClass:
    """Data class, labels and element of a resource or of a part of it.

    ``element`` is "" for the resource itself, or the name of the top-level element if the policy removes this part for some actor.
    Several names, joined by ``+``: the policy removes each of these elements for some actor.
    ``@`` and a data class after it mean: visible only to actors who may also see a resource of that data class with these labels, or,
    with ``.`` and a name after it, this element of one.  So is a part of a contained resource.
    ``/`` and a type at the end say which resources these are, and ``+`` after the type that they are several.
    An element ``*@data/Type`` is an index entry of what they guard.
    """

    data: str
    labels: frozenset[str] = frozenset()
    element: str = ""

    @property
    def targets(self) -> tuple[tuple[str, str, str], ...]:
        """The (data class, element or "", type or "") of what an actor must be able to see, too."""
        parts = (target.partition("/") for target in self.element.split("@")[1:])
        return tuple((*part.partition(".")[::2], type) for part, _, type in parts)

    def text(self) -> str:
        """The form that a store interns: ``data|LABEL,LABEL|element``, labels sorted."""
        return f"{self.data}|{','.join(sorted(self.labels))}|{self.element}"

    @staticmethod
    def parse(text: str) -> VisibilityClass:
        """The inverse of :meth:`text`.  Raises ValueError for anything else."""
        data, labels, element = text.split("|")
        return VisibilityClass(data, frozenset(labels.split(",")) if labels else frozenset(), element)


def with_target(element: str, data: str, type: str) -> str:
    """``element`` of a part, or of a resource (""), that is visible only to who may also see a ``type`` of this data class."""
    return f"{element}@{data}/{type}"
