"""Walks a resource with the tree of its type and lists the values that say something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fhir_server.consent.element_rules import Node, required_elements, tree
from fhir_server.jsontext import Path
from fhir_server.resources import elements

ITEM = "item"
"""The rule of a value that is itself an item that must say what it is."""


class Value(NamedTuple):
    """A value that says something.

    ``rule``  its rule in the table of elements, ``html`` for narrative, or ``ITEM``
    ``up``    how many steps above it its label lands
    ``path``  where it is
    ``part``  the path of the part that contains it and can be removed by itself
    """

    rule: str
    up: int
    path: Path
    part: Path
    value: Any


def values(type: str, resource: Mapping[str, Any]) -> list[Value]:
    """The values that say something of a resource, those of contained resources excepted.  Raises KeyError for an unknown type."""
    found: list[Value] = []
    _walk(tree(type), resource, (), (), found)
    return found


def _walk(node: Node, value: Mapping[str, Any], path: Path, part: Path, found: list[Value]) -> None:
    members = node.members
    for name, inner in value.items():
        member = members.get(name)
        if member is None:
            if name[:1] == "_":
                _walk_primitive(members, inner, (*path, name), found)
        elif type(inner) is list:
            for number, item in enumerate(inner):
                _visit(member, item, (*path, name, number), part, found)
        else:
            _visit(member, inner, (*path, name), part, found)


def _visit(node: Node, value: Any, path: Path, part: Path, found: list[Value]) -> None:
    if node.is_part:
        part = path
    if node.is_item:
        found.append(Value(ITEM, 0, path, part, value))
    if node.rule:
        found.append(Value(node.rule, node.up, path, part, value))
    if node.members and type(value) is dict:
        _walk(node, value, path, part, found)


def _walk_primitive(members: dict[str, Node], value: Any, path: Path, found: list[Value]) -> None:
    """The extensions of a primitive element."""
    extension = members.get("extension")
    for number, item in enumerate(value) if type(value) is list else [(None, value)]:
        if type(item) is dict and extension is not None:
            where = path if number is None else (*path, number)
            for place, inner in enumerate(item.get("extension", ())):
                _visit(extension, inner, (*where, "extension", place), (*where, "extension", place), found)


def item_of(path: Path, up: int) -> Path:
    """The path so many steps above a value."""
    for _ in range(up):
        end = len(path) - 1
        while not isinstance(path[end], str):
            end -= 1
        path = path[:end]
    return path


def removable(type: str, part: Path) -> Path:
    """The path to remove if a part is withheld; () if R4 requires the part, so that the resource is withheld with it."""
    if "modifierExtension" in part:
        return ()  # what remains would mean something else
    path = elements.removal_path(type, part)
    names = [step for step in path if isinstance(step, str)]
    return () if len(names) == 1 and names[0] in required_elements(type) else path
