"""What R4 requires inside an object: the elements without which a resource, backbone element or datatype is not valid.

Besides the elements with a minimum of 1 these are the alternatives of invariants such as ``text.exists() or entry.exists()``. An element
that is removed from an answer takes along the object that is not valid without it (:mod:`fhir_server.consent.element_cuts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element

# ``a.exists() or b.exists()``: at least one of them; ``xor`` and ``!=``: exactly one.
_ALTERNATIVES: Final = re.compile(r"\w+\.exists\(\)(?: (?:or|xor|!=) \w+\.exists\(\))+")
# ``a.count() > 1``: at least two; ``(a.count() + b.count()) = 1``: exactly one of them.
_COUNT: Final = re.compile(r"\(?\w+\.count\(\)(?: ?\+ ?\w+\.count\(\))*\)? ?(=|>) ?(\d+)")
_NAMES: Final = re.compile(r"(\w+)\.(?:exists|count)\(")


class Place(NamedTuple):
    """Where the rules for an object are: the definition (type or datatype), and the path of the object's element in it."""

    definition: str
    path: str


# Its invariant ext-1 stands with the elements of type Extension, not with the datatype.
_EXTENSION: Final = Place("Extension", "Extension")


class Required(NamedTuple):
    """Alternatives of which an object must have ``least`` values; a choice element is written ``value[x]``."""

    names: frozenset[str]
    least: int = 1

    def members(self, node: Mapping[str, Any]) -> list[str]:
        """The members of an object that meet the requirement."""
        names, choices = self.names, _choices(self.names)
        return [name for name in node if name in names or (choices and _is_choice(name, choices))]

    def meets(self, name: str) -> bool:
        """Whether a member meets the requirement."""
        return name in self.names or _is_choice(name, _choices(self.names))


@cache
def _choices(names: frozenset[str]) -> tuple[str, ...]:
    """The stems of the choice elements among these."""
    return tuple(name[:-3] for name in names if name.endswith("[x]"))


def _is_choice(member: str, stems: tuple[str, ...]) -> bool:
    return any(member.startswith(stem) and member[len(stem) : len(stem) + 1].isupper() for stem in stems)


def place_of(type: str, resource: Mapping[str, Any], path: Path) -> Place | None:
    """The place of the object at ``path`` in a resource of this type; None for what R4 does not define."""
    place = _defined_place(type, tuple([step for step in path if isinstance(step, str)]))
    if place is None or place.definition != "Resource":
        return place
    return _place_within(type, resource, path)


@lru_cache(4096)
def _defined_place(type: str, names: tuple[str, ...]) -> Place | None:
    """The place of what is at this path by the definition of the type; that of a resource for what is in a resource within it."""
    place: Place | None = Place(type, type)
    for name in names:
        place = _member_place(place, name) if place else None
        if place is not None and place.definition == "Resource":
            break
    return place


def _place_within(type: str, resource: Mapping[str, Any], path: Path) -> Place | None:
    place: Place | None = Place(type, type)
    node: Any = resource
    for step in path:
        if isinstance(step, int):
            node = node[step] if isinstance(node, list) and step < len(node) else None
        else:
            node = node.get(step) if isinstance(node, dict) else None
            place = _member_place(place, step) if place else None
        if place is not None and place.definition == "Resource" and isinstance(node, dict):
            name = str(node.get("resourceType"))
            place = Place(name, name) if name in definitions.types() else None
    return place


@cache
def requirements(place: Place) -> tuple[Required, ...]:
    """What an object at this place must have."""
    return tuple(_requirements(place))


@cache
def requirements_of(place: Place, member: str) -> tuple[Required, ...]:
    """What an object at this place must have, as far as this member counts for it."""
    return tuple(required for required in requirements(place) if required.meets(member))


def _requirements(place: Place) -> Iterator[Required]:
    for element in _elements(place.definition):
        parent, _, name = element.path.rpartition(".")
        if parent == place.path and element.min > 0:
            yield Required(frozenset({name}), element.min)
        if element.path == place.path:
            if place == _EXTENSION:
                yield Required(frozenset({"extension", "value[x]"}))
            choices = {other.path.rpartition(".")[2][:-3]: other.path.rpartition(".")[2] for other in _elements(place.definition)
                       if other.path.endswith("[x]") and other.path.rpartition(".")[0] == place.path}  # fmt: skip
            for invariant in element.invariants:
                expression = invariant.expression.strip() if invariant.severity == "error" else ""
                names = frozenset(choices.get(name, name) for name in _NAMES.findall(expression))
                if _ALTERNATIVES.fullmatch(expression):
                    yield Required(names)
                elif count := _COUNT.fullmatch(expression):
                    yield Required(names, int(count.group(2)) + (count.group(1) == ">"))


@cache
def _member_place(place: Place, member: str) -> Place | None:
    if member.startswith("_"):
        return Place("Element", "Element")
    for element in _elements(place.definition):
        parent, _, name = element.path.rpartition(".")
        if parent != place.path:
            continue
        if name == member:
            return _element_place(place.definition, element, element.types[0].code if element.types else "")
        if name.endswith("[x]") and member.startswith(name[:-3]):
            for choice in element.types:
                if member == name[:-3] + choice.code[0].upper() + choice.code[1:]:
                    return _element_place(place.definition, element, choice.code)
    return None


def _element_place(definition: str, element: Element, code: str) -> Place | None:
    if element.like:
        return Place(definition, element.like)
    if code in ("BackboneElement", "Element"):
        return Place(definition, element.path)
    if code == "Resource":
        return Place("Resource", "Resource")
    return Place(code, code) if code in definitions.datatypes() else None


def _elements(name: str) -> tuple[Element, ...]:
    try:
        return definitions.elements(name)
    except KeyError:
        return ()
