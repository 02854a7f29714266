"""The table of elements: which elements of R4's types say something of their resource, and how it counts (docs/elements.md).

The table is the folder ``elements`` of ``ig``.  A line names types, elements, a rule and its reason.  The closest line decides:

1. the type and the element: ``Encounter``, ``class``;
2. the element in any type, at any depth: ``*``, ``reasonCode``;
3. ``<required>``: a concept whose codes R4 enumerates;
4. ``@directory``: a concept in a type of the directory;
5. the datatype: ``string``.

``[]`` after a step says where a label lands: ``component[].code`` labels the item of ``component``, ``code`` the resource.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fhir_server.consent.code_systems import normalize_code
from fhir_server.package_data import data_folder
from fhir_server.resources import catalog

RULES: Final = frozenset({"kind", "detail", "marks", "text", "unread", "plain"})
CODED: Final = frozenset({"Coding", "CodeableConcept"})
REQUIRED: Final = "<required>"
_DIRECTORY: Final = "@directory"
_SYSTEMS: Final = "administrative-systems.csv"


@dataclass(frozen=True, slots=True)
class Line:
    """What the table says of an element.

    ``types``, ``element``  as written, without ``[]``
    ``rule``                one of ``RULES``
    ``up``                  how many steps above the element the label lands; 0: at the element, for a ``kind`` at the resource
    """

    types: str
    element: str
    rule: str
    up: int = 0


class ElementTable:
    """The lines of a folder.  Raises ValueError for an unknown rule, a line without a reason, or an element with two lines."""

    def __init__(self, folder: Path) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        self._suffixes: dict[str, Line] = {}
        for path in sorted(folder.glob("*.csv")):
            if path.name != _SYSTEMS:
                self._read(path)

    def _read(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["rule"] not in RULES or not row["reason"]:
                    raise ValueError(f"{path.name}: {row} needs a rule ({', '.join(sorted(RULES))}) and a reason.")
                for types in row["types"].split():
                    for written in row["elements"].split() or [""]:
                        self._add(path, types, written, row["rule"])

    def _add(self, path: Path, types: str, written: str, rule: str) -> None:
        element = written.replace("[].", ".")
        line = Line(types, element, rule, written.partition("[].")[2].count(".") + 1 if "[]." in written else 0)
        if (types, element) in self._lines:
            raise ValueError(f"{path.name}: two lines decide about {element or 'all elements'} of {types}.")
        self._lines[types, element] = line

    def lines(self) -> frozenset[Line]:
        return frozenset(self._lines.values())

    def line(self, name: str, element: str, datatype: str, required: bool = False) -> Line | None:
        """The line that decides about an element of a type or datatype, if its value has this datatype; None if no line does.

        ``required``: whether R4 enumerates the element's codes.
        """
        steps = element.split(".")
        found = self._lines.get((name, element))
        suffixes = (".".join(steps[start:]) for start in range(len(steps)))
        found = found or next((line for suffix in suffixes if (line := self._lines.get(("*", suffix)))), None)
        if found is not None and _applies(found, datatype):
            return found
        if datatype in CODED:
            if required:
                return self._lines.get((REQUIRED, ""))
            declared = catalog().get(name)
            return self._lines.get((_DIRECTORY, "")) if declared is not None and declared.data_class == "directory" else None
        return self._lines.get((datatype, ""))


def _applies(line: Line, datatype: str) -> bool:
    """Whether a line of an element decides about its values of this datatype: a choice has several."""
    if line.rule in ("kind", "detail", "marks"):
        return datatype in CODED or datatype == "string" or (line.rule == "kind" and datatype in ("Reference", "canonical", "uri"))
    return line.rule == "plain" or datatype not in CODED


@functools.cache
def table() -> ElementTable:
    """The table of the package."""
    return ElementTable(data_folder("ig") / "elements")


@functools.cache
def administrative_systems() -> frozenset[str]:
    """The normalized URIs of the code systems whose codes say nothing of a patient's health, unless a list names one as sensitive."""
    with (data_folder("ig") / "elements" / _SYSTEMS).open(encoding="utf-8", newline="") as file:
        return frozenset(normalize_code(row["system"], "")[0] for row in csv.DictReader(file))
