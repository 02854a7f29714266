"""Walks a resource with the tree of its type and lists the values that say something, and the references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fhir_server.consent.element_rules import Node, required_elements, tree
from fhir_server.jsontext import Path
from fhir_server.resources import elements
from fhir_server.resources.elements import link_target
from fhir_server.resources.references import Target

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


class Mention(NamedTuple):
    """A Reference or an Attachment's url: its path, and the (type, id) that it refers to, if any."""

    path: Path
    target: Target | None


class Reading:
    """What one walk through a resource finds.

    ``coded``      the values of coded elements, and the items that must say what they are
    ``texts``      strings, narrative and attachments
    ``mentions``   all References and attachment URLs, those of contained resources included
    ``fragments``  (path, text) of each reference that is a fragment
    """

    __slots__ = ("base", "coded", "fragments", "mentions", "texts")

    def __init__(self, base: str) -> None:
        self.base = base
        self.coded: list[Value] = []
        self.texts: list[Value] = []
        self.mentions: list[Mention] = []
        self.fragments: list[tuple[Path, str]] = []


def read(type: str, resource: Mapping[str, Any], base: str = "") -> Reading:
    """Read a resource, the values of contained resources excepted; ``base`` is the server's FHIR base URL.

    Raises KeyError for an unknown type.
    """
    reading = Reading(base)
    _walk(resource, tree(type), (), (), reading)
    return reading


def read_mentions(resource: Mapping[str, Any], base: str = "") -> Reading:
    """The same with mentions and fragments only."""
    reading = Reading(base)
    _walk(resource, _UNKNOWN, (), (), reading)
    return reading


_UNKNOWN: Final = Node()


def _walk(value: Mapping[str, Any], node: Node, path: Path, part: Path, reading: Reading) -> None:
    if ("reference" in value or "url" in value) and path:  # the url of a resource itself is its name
        _read_link(value, path, reading)
    members = node.members
    for name, inner in value.items():
        kind = type(inner)
        member = members.get(name)
        if kind is list:
            if member is not None:
                for number, item in enumerate(inner):
                    _visit(member, item, (*path, name, number), part, reading)
            else:
                for number, item in enumerate(inner):
                    if type(item) is dict:
                        _walk_unknown(node, name, item, (*path, name, number), part, reading)
        elif member is not None:
            _visit(member, inner, (*path, name), part, reading)
        elif kind is dict:
            _walk_unknown(node, name, inner, (*path, name), part, reading)


def _visit(node: Node, value: Any, path: Path, part: Path, reading: Reading) -> None:
    if node.is_part:
        part = path
    if node.rule:
        (reading.texts if node.is_text else reading.coded).append(Value(node.rule, node.up, path, part, value))
    if type(value) is dict:
        if node.is_item:
            reading.coded.append(Value(ITEM, 0, path, part, value))
        if not value.keys() <= node.silent:
            _walk(value, node, path, part, reading)


def _walk_unknown(node: Node, name: str, value: Mapping[str, Any], path: Path, part: Path, reading: Reading) -> None:
    """Walk an object that the table says nothing of; in that of a primitive element the extensions speak."""
    extension = node.members.get("extension") if name[:1] == "_" else None
    if extension is None:
        _walk(value, _UNKNOWN, path, part, reading)
        return
    for number, item in enumerate(value.get("extension", ())):
        place = (*path, "extension", number)
        _visit(extension, item, place, place, reading)


def _read_link(node: Mapping[str, Any], path: Path, reading: Reading) -> None:
    text = node["reference"] if "reference" in node else node["url"]
    target = link_target(text, reading.base) if isinstance(text, str) else None
    if target is not None or "url" not in node:
        reading.mentions.append(Mention(path, target))
    if "reference" in node and isinstance(text, str) and text[:1] == "#":
        reading.fragments.append((path, text))


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
