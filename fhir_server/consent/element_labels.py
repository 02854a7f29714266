"""Collects the parts of a resource that have a visibility class of their own: labeled parts and removable elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.jsontext import Path

_CHOSEN_NAMES: Final = frozenset({"nickname", "usual", "anonymous", "temp"})


def _is_of_household(entry: Mapping[str, Any], patient: Mapping[str, Any]) -> bool:
    """Members of a household know its address and telephone: entries with ``use`` home and without extensions."""
    return entry.get("use") == "home" and "extension" not in entry


def _is_registered_name(entry: Mapping[str, Any], patient: Mapping[str, Any]) -> bool:
    """A name that the patient did not choose, or the only kind of name that the record has."""
    others = any(other.get("use") not in _CHOSEN_NAMES for other in patient.get("name", ()))
    return entry.get("use") not in _CHOSEN_NAMES or not others


# Elements of Patient of which some entries stay, and whether one does.
_PARTLY_KEPT: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]]] = {
    "telecom": _is_of_household,
    "address": _is_of_household,
    "name": _is_registered_name,
}
_FREE_TEXT: Final = ("text", "note")


class ElementLabels:
    """Labels and removable elements by path."""

    def __init__(self) -> None:
        self._labels: dict[Path, set[str]] = {}
        self._elements: dict[Path, str] = {}

    def add(self, path: Path, labels: Iterable[str]) -> None:
        """Add labels to the part at ``path``."""
        self._labels.setdefault(path, set()).update(labels)

    def labels(self, path: Path) -> frozenset[str]:
        """The labels of the part at ``path``."""
        return frozenset(self._labels.get(path, ()))

    def label_narrative(self, resource: Mapping[str, Any]) -> None:
        """Give the narrative the labels of all parts: it sums them up, so it goes whenever one of them goes."""
        if "text" in resource and (labels := set().union(*self._labels.values())):
            self.add(("text",), labels)

    def add_element(self, path: Path, element: str) -> None:
        """Withhold the part at ``path`` from whom the policy withholds ``element`` (see :class:`VisibilityClass`), and as before."""
        present = self._elements.get(path, "")
        names, _, rest = element.partition("@")
        others, _, present_rest = present.partition("@")
        joined = "+".join(sorted({*names.split("+"), *others.split("+")} - {""}))
        self._elements[path] = joined + (f"@{rest or present_rest}" if rest or present_rest else "")

    def add_inner(self, path: Path, inner: ElementLabels) -> None:
        """Add the labels of the parts of a contained resource at ``path``."""
        for part, labels in inner._labels.items():
            self.add((*path, *part), labels)
        for part, element in inner._elements.items():
            self.add_element((*path, *part), element)

    def follow(self, path: Path, other: Path) -> None:
        """Withhold the part at ``path`` from whom the part at ``other`` is withheld."""
        if labels := self._labels.get(other):
            self.add(path, labels)
        if element := self._elements.get(other):
            self.add_element(path, element)

    @property
    def has_labels(self) -> bool:
        """Whether any part has labels."""
        return any(self._labels.values())

    def add_redactable(self, resource: Mapping[str, Any], names: Iterable[str]) -> None:
        """Give the elements of these names, which the policy removes for some actor, a class of their own."""
        for name in sorted(names):
            if resource.get("resourceType") == "Patient" and name in _PARTLY_KEPT:
                for number, entry in enumerate(resource.get(name, ())):
                    if not _PARTLY_KEPT[name](entry, resource):
                        self.add_element((name, number), name)
                continue
            for member in (name, f"_{name}"):
                if member in resource:
                    self.add_element((member,), name)
            if name in _FREE_TEXT:
                for number, inner in enumerate(resource.get("contained", ())):
                    if name in inner:
                        self.add_element(("contained", number, name), name)

    def labeled_elements(self, whole: VisibilityClass) -> tuple[tuple[Path, VisibilityClass], ...]:
        """(path, class) of every part whose class differs from that of the whole resource.

        A part has at least the labels of what encloses it, since an index entry has the class of the innermost part.
        """
        classes: dict[Path, VisibilityClass] = {}
        for path in sorted({*self._labels, *self._elements}, key=_order):
            labels, element = whole.labels | self._labels.get(path, set()), self._elements.get(path, "")
            for length in range(1, len(path)):
                outer = classes.get(path[:length])
                if outer is not None:
                    labels, element = labels | outer.labels, element or outer.element
            key = VisibilityClass(whole.data, frozenset(labels), element)
            if key != whole:
                classes[path] = key
        return tuple(classes.items())


def _order(path: Path) -> tuple[int, tuple[str, ...]]:
    """Sort key: outer paths before inner ones, in an order that is the same for equal resources."""
    return len(path), tuple(str(step) for step in path)
