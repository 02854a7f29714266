"""Visibility classes: the static facts of a row, or of a part of one, on which the policy decides.

A class holds nothing that changes with time: age, release and grants are judged at request time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CATEGORIES: Final = frozenset({"HIV", "STD", "DRUGTEST", "PAP", "PREG", "MH", "SUD", "SEXAB", "REPRO", "GENETIC"})
MC: Final = "MC"  # care to which a minor consented alone
PHYHOLD: Final = "PHYHOLD"  # kept from the patient side by a clinician
UNCLASSIFIED: Final = "UNCLASSIFIED"  # of a kind nobody has classified
HELD: Final = "HELD"  # not final, or withheld one by one
MIXED: Final = "MIXED"  # of several deciding patients, of whom each would see the others
PSYNOTE: Final = "PSYNOTE"  # psychotherapy note
LABELS: Final = CATEGORIES | {MC, PHYHOLD, UNCLASSIFIED, HELD, MIXED, PSYNOTE}


@dataclass(frozen=True, slots=True)
class VisibilityClass:
    """``data`` class, sensitivity ``labels``, and ``element``: the top-level element's name when this is the class of a
    part of a row that the policy takes out for somebody ("" for the row itself), or ``@`` and a data class for what
    only those may know who see both this row and one of that class that it refers to.
    """

    data: str
    labels: frozenset[str] = frozenset()
    element: str = ""

    def text(self) -> str:
        """The form a store interns: ``data|LABEL,LABEL|element``, labels sorted."""
        return f"{self.data}|{','.join(sorted(self.labels))}|{self.element}"

    @staticmethod
    def parse(text: str) -> VisibilityClass:
        """The inverse of :meth:`text`.  Raises ValueError for anything else."""
        data, labels, element = text.split("|")
        return VisibilityClass(data, frozenset(labels.split(",")) if labels else frozenset(), element)
