"""XML Patch (RFC 5261; http://hl7.org/fhir/R4/http.html#patch) of a resource that is JSON: add, replace and remove.

The patch changes the XML of the resource, which then becomes JSON again.  What it leaves as it was keeps its text.  The elements of the
result may have any order, as the members of JSON do, so that adding to the end is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.fhir_xml import selectors, tree
from fhir_server.fhir_xml.members import FHIR
from fhir_server.fhir_xml.reader import to_json
from fhir_server.fhir_xml.selectors import Selector
from fhir_server.fhir_xml.tree import Node
from fhir_server.fhir_xml.writer import to_xml

MAX_OPERATIONS: Final = 200
_OPERATIONS: Final = ("add", "replace", "remove")
_POSITIONS: Final = ("", "prepend", "before", "after")


class _PlaceError(Exception):
    """An operation cannot be done.  The text says why, without anything of the resource."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: ``attribute`` is what an ``add`` adds, ``position`` where it adds elements; ``content`` is what is put in."""

    name: str
    selector: Selector
    content: Node
    attribute: str = ""
    position: str = ""


def parse(text: bytes) -> list[Operation]:
    """The operations of an XML Patch document.  Raises Problem ``invalid`` for a text that is none."""
    root = tree.parse(text)
    if root.name != "diff" or root.namespace not in ("", FHIR):
        raise Problem("invalid", "The root of an XML Patch is <diff>.")
    if len(root.elements) > MAX_OPERATIONS:
        raise Problem("invalid", f"An XML Patch has at most {MAX_OPERATIONS} operations.")
    if any(child.strip() for child in root.children if isinstance(child, str)):
        raise Problem("invalid", "An XML Patch consists of operations.")
    return [_operation(number, node) for number, node in enumerate(root.elements)]


def _operation(number: int, node: Node) -> Operation:
    if node.name not in _OPERATIONS or "sel" not in node.attributes:
        raise Problem("invalid", f"Operation {number}: an operation is add, replace or remove, and has sel.")
    kind, position = node.attributes.get("type", ""), node.attributes.get("pos", "")
    selector = selectors.parse(node.attributes["sel"], node.prefixes)
    if position not in _POSITIONS or (kind and not (kind.startswith("@") and kind[1:].isalpha())):
        raise Problem("invalid", f"Operation {number}: pos is prepend, before or after; type is @ with the name of an attribute.")
    if node.attributes.keys() - {"sel", "type", "pos", "ws"}:
        raise Problem("invalid", f"Operation {number}: an operation has the attributes sel, type, pos and ws.")
    return Operation(node.name, selector, node, kind[1:], position)


def apply(operations: list[Operation], text: bytes, limit: int) -> bytes:
    """The JSON text of a resource, which ``text`` is, after all operations.  ``limit``: how many bytes they may add.

    Raises Problem ``unprocessable``, which names the operation, if one cannot be done, or if the result is no resource; ``too_large``.
    """
    root = tree.parse(to_xml(text))
    plain = to_json(tree.serialize(root))
    spending = budget.current()
    for number, operation in enumerate(operations):
        if spending is not None:
            spending.remaining()
        try:
            root = _applied(operation, root)
        except _PlaceError as error:
            raise Problem("unprocessable", f"Operation {number} ({operation.name}): {error}") from None
    try:
        changed = to_json(tree.serialize(root), ordered=False)
    except Problem as problem:
        raise Problem("unprocessable", f"The patched resource is not valid: {problem}", problem.issues) from None
    if len(changed) > len(text) + limit:
        raise Problem("too_large", "The patch makes the resource larger than a single resource may be.")
    return _as_written(text, plain, changed)


def _applied(operation: Operation, root: Node) -> Node:
    found = operation.selector.find(root)
    if len(found) != 1:
        raise _PlaceError("sel must select exactly one place.")
    (parent, node), attribute = found[0], operation.selector.attribute
    content = operation.content.copy()
    if attribute:
        _change_text(operation, node, attribute, content)
        return root
    if operation.name == "add":
        _add(operation, parent, node, content)
    elif operation.name == "remove":
        if parent is None:
            raise _PlaceError("The whole resource cannot be removed.")
        parent.children.remove(node)
    else:
        if len(content.elements) != 1:
            raise _PlaceError("An element is replaced by one element.")
        if parent is None:
            return content.elements[0]
        parent.children[parent.children.index(node)] = content.elements[0]
    return root


def _add(operation: Operation, parent: Node | None, node: Node, content: Node) -> None:
    if operation.attribute:
        if operation.attribute in node.attributes:
            raise _PlaceError("There is such an attribute already.")
        node.attributes[operation.attribute] = content.text
    elif operation.position in ("before", "after"):
        if parent is None:
            raise _PlaceError("There is nothing beside the resource.")
        place = parent.children.index(node) + (operation.position == "after")
        parent.children[place:place] = content.children
    else:
        place = 0 if operation.position == "prepend" else len(node.children)
        node.children[place:place] = content.children


def _change_text(operation: Operation, node: Node, attribute: str, content: Node) -> None:
    """Replace or remove an attribute, or the text before the first element."""
    if operation.name == "add":
        raise _PlaceError("An attribute is added to an element by type.")
    if attribute == "text()":
        if not node.children or not isinstance(node.children[0], str):
            raise _PlaceError("sel must select exactly one place.")
        node.children[0] = content.text if operation.name == "replace" else ""
    elif attribute not in node.attributes:
        raise _PlaceError("sel must select exactly one place.")
    elif operation.name == "replace":
        node.attributes[attribute] = content.text
    else:
        del node.attributes[attribute]


def _as_written(text: bytes, plain: bytes, changed: bytes) -> bytes:
    """The changed resource, with what is in it as it was in ``plain`` as it is written in ``text``, the same resource.

    So the text of members, and of the items of arrays, that the patch does not touch stays the same.
    """
    written, before, after = jsontext.members(text), jsontext.members(plain), jsontext.members(changed)
    for name, value in after.items():
        if value == before.get(name):
            after[name] = written[name]
        elif value[:1] == b"[" and before.get(name, b"")[:1] == b"[":
            known = dict(zip(jsontext.items(before[name]), jsontext.items(written[name]), strict=True))
            after[name] = b"[" + b",".join([known.get(item, item) for item in jsontext.items(value)]) + b"]"
    return jsontext.join_members(after)
