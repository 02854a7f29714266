"""Parts of a row with a class of their own, on their way to becoming facets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.jsontext import Path

# Household data in a Patient is no secret among its household: an entry for use at home, with nothing unknown attached.
_HOUSEHOLD: Final = frozenset({"telecom", "address"})
_FREE_TEXT: Final = ("text", "note")


class ElementLabels:
    """Collects labels and redactable elements by path."""

    def __init__(self) -> None:
        self._labels: dict[Path, set[str]] = {}
        self._elements: dict[Path, str] = {}

    def add(self, path: Path, labels: Iterable[str]) -> None:
        """These labels hold for the part at ``path``."""
        self._labels.setdefault(path, set()).update(labels)

    def redactable(self, resource: Mapping[str, Any], names: Iterable[str]) -> None:
        """The policy takes these elements out for somebody."""
        for name in sorted(names):
            if resource.get("resourceType") == "Patient" and name in _HOUSEHOLD:
                for number, entry in enumerate(resource.get(name, ())):
                    if entry.get("use") != "home" or "extension" in entry:
                        self._elements[name, number] = name
                continue
            for member in (name, f"_{name}"):
                if member in resource:
                    self._elements[member,] = name
            if name in _FREE_TEXT:
                for number, inner in enumerate(resource.get("contained", ())):
                    if name in inner:
                        self._elements["contained", number, name] = name

    def labeled_elements(self, row: VisibilityClass) -> tuple[tuple[Path, VisibilityClass], ...]:
        """(path, class) of every part that is not simply of the row's class.

        A part is never less protected than what encloses it, since an index entry takes the innermost part's class.
        """
        found: dict[Path, VisibilityClass] = {}
        for path in sorted({*self._labels, *self._elements}, key=_order):
            labels, element = row.labels | self._labels.get(path, set()), self._elements.get(path, "")
            for length in range(1, len(path)):
                outer = found.get(path[:length])
                if outer is not None:
                    labels, element = labels | outer.labels, element or outer.element
            key = VisibilityClass(row.data, frozenset(labels), element)
            if key != row:
                found[path] = key
        return tuple(found.items())


def _order(path: Path) -> tuple[int, tuple[str, ...]]:
    """Short paths first, and always in the same order: two labellings of one row must be equal."""
    return len(path), tuple(str(step) for step in path)
