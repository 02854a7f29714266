"""Compiles the table of elements for one type into a tree that a resource is walked with.

A type's tree has the elements that say something and those that lead to them.  It is made from R4's definitions when the first
resource of the type is labeled; datatypes share their trees.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Final

from fhir_server.consent.element_table import Line, table
from fhir_server.resources import definitions

TEXT: Final = frozenset({"string", "markdown", "xhtml"})
_BACKBONE: Final = frozenset({"BackboneElement", "Element"})
LINKS: Final = frozenset({"reference", "url"})
"""Members that may refer to another resource, in any object."""
_SKIPPED: Final = frozenset({"Resource", "Meta"})  # contained resources have trees of their own; meta is internal


@dataclass(slots=True, eq=False)
class Node:
    """An element in the tree of a type.

    ``rule``      what its value says; "" if only its members do; ``html`` for narrative
    ``up``        how many steps above it the label of its value lands
    ``is_part``   whether it can be removed by itself: an element of the resource, or an extension
    ``is_item``   whether each item of it must say what it is
    ``members``   the nodes of its members, by their names in JSON
    ``silent``    members of an object that say nothing, by themselves or inside: primitives without a rule
    ``is_text``   whether its value is free text
    """

    rule: str = ""
    up: int = 0
    is_part: bool = False
    is_item: bool = False
    members: dict[str, Node] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    is_text: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_text = self.rule in ("text", "html", "unread")


_CODING: Final = Node(silent={"id", "system", "version", "code", "display", "userSelected"})  # it is read with its concept


@functools.cache
def tree(type: str) -> Node:
    """The tree of a resource type.  Raises KeyError for an unknown one."""
    root = _build(type, is_part=True)
    _mark_items(type, root)
    return root


@functools.cache
def has_kind(type: str) -> bool:
    """Whether resources of a type must say what they are."""
    return any(node.rule == "kind" and node.up == 0 for node in _nodes(tree(type)))


@functools.cache
def required_elements(type: str) -> frozenset[str]:
    """The elements at the top of a type that R4 requires: without them, the resource is not valid."""
    return frozenset(e.path.partition(".")[2] for e in definitions.elements(type) if e.min > 0 and e.path.count(".") == 1)


_datatypes: dict[str, Node] = {}


def _datatype(name: str) -> Node:
    """The members of a datatype; one object for each, since Identifier and Reference contain each other."""
    if name not in _datatypes:
        _datatypes[name] = node = Node()
        built = _build(name, is_part=False)
        node.members, node.silent = built.members, built.silent
    return _datatypes[name]


def _build(name: str, is_part: bool) -> Node:
    nodes: dict[str, Node] = {"": Node()}
    for element in definitions.elements(name):
        path = element.path.partition(".")[2]
        outer, _, last = path.rpartition(".")
        parent = nodes.get(outer)
        if not path or parent is None or (name == "Attachment" and last == "data"):
            continue  # the data of an Attachment are read with their type
        if element.like:
            parent.members[last] = nodes[element.like.partition(".")[2]]
            continue
        for ref in element.types:
            line = table().line(name, path, ref.code, element.codes is not None)
            node = _node(ref.code, line, is_part or (last == "extension" and name != "Extension"))
            member = _member(last, ref.code)
            if node is not None:
                nodes[path] = parent.members[member] = node
            elif ref.code in definitions.primitives() and member not in LINKS:
                parent.silent.add(member)
    return nodes[""]


def _member(name: str, datatype: str) -> str:
    return name[:-3] + datatype[0].upper() + datatype[1:] if name.endswith("[x]") else name


def _node(datatype: str, line: Line | None, is_part: bool) -> Node | None:
    rule, up = (line.rule, line.up) if line is not None else ("", 0)
    if rule == "plain" or datatype in _SKIPPED:
        return None
    if datatype in _BACKBONE:
        return Node(is_part=is_part)
    if datatype == "Attachment":
        return Node("unread", is_part=is_part, members=_datatype("Attachment").members)
    if datatype == "Coding":
        return Node(rule, up, is_part, members={"extension": _extension()}, silent=_CODING.silent)
    if datatype == "CodeableConcept":
        return Node(rule, up, is_part, members={"coding": _CODING, "extension": _extension()}, silent={"id", "text"})
    if datatype in definitions.datatypes():
        shared = _datatype(datatype)
        return Node(rule if rule == "kind" else "", up, is_part, members=shared.members, silent=shared.silent)
    if rule == "text" and datatype == "xhtml":
        rule = "html"
    return Node(rule, up, is_part) if rule else None


def _extension() -> Node:
    """An extension: it is a part wherever it stands."""
    if "extension" not in _datatypes:
        _datatypes["extension"] = node = Node(is_part=True)
        shared = _datatype("Extension")
        node.members, node.silent = shared.members, shared.silent
    return _datatypes["extension"]


def _mark_items(type: str, root: Node) -> None:
    for line in table().lines():
        if line.types == type and line.rule == "kind" and line.up:
            node = root
            for name in line.element.split(".")[: -line.up]:
                node = node.members[name]
            node.is_item = True


def _nodes(node: Node, seen: set[int] | None = None) -> list[Node]:
    seen = set() if seen is None else seen
    if id(node) in seen:
        return []
    seen.add(id(node))
    return [node, *(inner for member in node.members.values() for inner in _nodes(member, seen))]
