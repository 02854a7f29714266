"""Collects the parts of a resource that some callers do not see: labeled parts, removable elements, and what is guarded by other rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.store import GuardedReference

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


class Cut(NamedTuple):
    """When a part is removed: if one of its labels or the removable element is withheld, or one of the rows ``targets`` is hidden."""

    labels: frozenset[str]
    element: str
    targets: frozenset[str]


_NONE: Final[frozenset[str]] = frozenset()
NOTHING: Final = Cut(_NONE, "", _NONE)
"""Of what is never removed."""


class ElementLabels:
    """Labels, removable elements and guards by path."""

    def __init__(self) -> None:
        self._labels: dict[Path, frozenset[str]] = {}
        self._elements: dict[Path, str] = {}
        self._targets: dict[Path, frozenset[str]] = {}

    def add(self, path: Path, labels: Iterable[str]) -> None:
        """Add labels to the part at ``path``."""
        present = self._labels.get(path)
        self._labels[path] = present.union(labels) if present else frozenset(labels)

    def guard(self, path: Path, target: str) -> None:
        """Remove the part at ``path`` for callers who do not see the row ``target`` (``Type/id``)."""
        self._targets[path] = self._targets.get(path, _NONE) | {target}

    def labels(self, path: Path) -> frozenset[str]:
        """The labels of the part at ``path``."""
        return self._labels.get(path, _NONE)

    def label_narrative(self, resource: Mapping[str, Any]) -> None:
        """Give the narrative the labels of all parts: it sums them up, so it goes whenever one of them goes."""
        if "text" in resource and (labels := self.all_labels()):
            self.add(("text",), labels)

    def add_element(self, path: Path, element: str) -> None:
        """Withhold the part at ``path`` from whom the policy withholds ``element`` (see :class:`VisibilityClass`), and as before."""
        self._elements[path] = join_elements(self._elements.get(path, ""), element)

    def add_inner(self, path: Path, inner: ElementLabels) -> None:
        """Add the labels of the parts of a contained resource at ``path``."""
        for part, labels in inner._labels.items():
            self.add((*path, *part), labels)
        for part, element in inner._elements.items():
            self.add_element((*path, *part), element)
        for part, targets in inner._targets.items():
            for target in targets:
                self.guard((*path, *part), target)

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

    def add_redactable(self, resource: Mapping[str, Any], names: frozenset[str]) -> None:
        """Give the elements of these names, which the policy removes for some actor, a class of their own."""
        is_patient = resource.get("resourceType") == "Patient"
        for member, name in _members(names):
            if is_patient and name in _PARTLY_KEPT:
                for number, entry in enumerate(resource.get(name, ()) if member == name else ()):
                    if not _PARTLY_KEPT[name](entry, resource):
                        self.add_element((name, number), name)
            elif member in resource:
                self.add_element((member,), name)
        if "contained" in resource:
            for name in names.intersection(_FREE_TEXT):
                for number, inner in enumerate(resource["contained"]):
                    if name in inner:
                        self.add_element(("contained", number, name), name)

    def paths(self) -> frozenset[Path]:
        """The paths of all parts."""
        return frozenset({*self._labels, *self._elements, *self._targets})

    def cut(self, path: Path) -> Cut:
        """When the part at ``path`` is removed."""
        labels, element, targets = self._labels.get(path, _NONE), self._elements.get(path, ""), self._targets.get(path, _NONE)
        return Cut(labels, element, targets) if labels or element or targets else NOTHING

    def add_cut(self, path: Path, cut: Cut) -> None:
        """Remove the part at ``path`` whenever ``cut`` says so."""
        if cut.labels:
            self.add(path, cut.labels)
        if cut.element:
            self.add_element(path, cut.element)
        for target in cut.targets:
            self.guard(path, target)

    def discard(self, path: Path) -> None:
        """The part at ``path`` is no longer a part of its own."""
        for parts in (self._labels, self._elements, self._targets):
            parts.pop(path, None)

    def all_labels(self) -> frozenset[str]:
        """The labels of all parts."""
        return frozenset().union(*self._labels.values())

    def all_targets(self) -> frozenset[str]:
        """The targets of all guards."""
        return frozenset().union(*self._targets.values())

    def labeled_elements(self, whole: VisibilityClass) -> tuple[tuple[Path, VisibilityClass], ...]:
        """(path, class) of every part whose class differs from that of the whole resource.

        A part has at least the labels of what encloses it, since an index entry has the class of the innermost part.
        """
        classes: dict[Path, VisibilityClass] = {}
        paths = {*self._labels, *self._elements}
        for path in sorted(paths, key=_order) if len(paths) > 1 else paths:
            own, element = self._labels.get(path), self._elements.get(path, "")
            labels = whole.labels | own if own else whole.labels
            for length in range(1, len(path)):
                outer = classes.get(path[:length])
                if outer is not None:
                    labels, element = labels | outer.labels, element or outer.element
            if labels != whole.labels or element:
                classes[path] = VisibilityClass(whole.data, labels, element)
        return tuple(classes.items())

    def guarded_references(self) -> tuple[GuardedReference, ...]:
        """The guards, outer parts first, without those that an outer part has too."""
        found: list[GuardedReference] = []
        guards = self._targets
        for path in sorted(guards, key=_order) if len(guards) > 1 else guards:
            targets = guards[path]
            for length in range(1, len(path)):
                if path[:length] in guards:
                    targets = targets - guards[path[:length]]
            found += [GuardedReference(path, target) for target in (sorted(targets) if len(targets) > 1 else targets)]
        return tuple(found)


@functools.lru_cache(1024)
def _members(names: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """(member, name) of the members that hold the elements of these names."""
    return tuple((member, name) for name in sorted(names) for member in (name, f"_{name}"))


@functools.lru_cache(4096)
def join_elements(one: str, other: str) -> str:
    """The element of what is withheld from whom either of these elements is withheld."""
    names, *targets = one.split("@")
    other_names, *other_targets = other.split("@")
    joined = "+".join(sorted({*names.split("+"), *other_names.split("+")} - {""}))
    return "@".join((joined, *sorted({*targets, *other_targets})))


def _order(path: Path) -> tuple[int, tuple[str, ...]]:
    """Sort key: outer paths before inner ones, in an order that is the same for equal resources."""
    return len(path), tuple(str(step) for step in path)
