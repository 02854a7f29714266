"""A small XML tree that can be changed, for XML Patch."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from fhir_server import jsontext
from fhir_server.fhir_xml.safe_parsing import new_parser, run, without_mark
from fhir_server.fhir_xml.values import refuse

_XML = "http://www.w3.org/XML/1998/namespace"
_DECLARING = 2  # levels of elements of which the declarations are kept: all that a text declares at each would be much
_ESCAPES = {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


@dataclass(slots=True, eq=False)
class Node:
    """An element: its namespace and local name, its attributes, its elements and texts.

    ``prefixes``: the namespaces that are declared at it, by prefix; of the root and of its elements, which are the operations of a patch.
    """

    namespace: str
    name: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)
    prefixes: Mapping[str, str] = field(default_factory=dict)

    @property
    def elements(self) -> list[Node]:
        """Its children that are elements."""
        return [child for child in self.children if isinstance(child, Node)]

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def copy(self) -> Node:
        """The same element, with all that is in it, as another one."""
        children = [child if isinstance(child, str) else child.copy() for child in self.children]
        return Node(self.namespace, self.name, dict(self.attributes), children, self.prefixes)


def parse(text: bytes) -> Node:
    """The tree of an XML text.  Raises Problem ``invalid``, as :func:`~fhir_server.fhir_xml.to_json`."""
    root = Node("", "", {})
    open_: list[Node] = [root]
    prefixes: list[tuple[str, str]] = []

    def namespace(prefix: str | None, uri: str | None) -> None:
        prefixes.append((prefix or "", uri or ""))

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_) > jsontext.MAX_DEPTH:
            refuse(f"The body nests elements deeper than {jsontext.MAX_DEPTH} levels.")
        uri, _, local = name.rpartition(" ")
        declared = ChainMap(dict(prefixes), open_[-1].prefixes) if len(open_) <= _DECLARING else {}  # type: ignore[arg-type]
        node = Node(uri, local, attributes, prefixes=declared)
        prefixes.clear()
        open_[-1].children.append(node)
        open_.append(node)

    def end(_: str) -> None:
        open_.pop()

    def characters(text: str) -> None:
        open_[-1].children.append(text)

    parser = new_parser()
    parser.StartNamespaceDeclHandler = namespace
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    run(parser, without_mark(text))
    return root.elements[0]


def serialize(root: Node) -> bytes:
    """The XML text of a tree."""
    out: list[str] = []
    _write(root, "", out)
    return "".join(out).encode()


def _write(node: Node, outer: str, out: list[str]) -> None:
    declared = "" if node.namespace == outer else f' xmlns="{escape(node.namespace, _ESCAPES)}"'
    attributes = ""
    for number, (name, value) in enumerate(node.attributes.items()):
        uri, _, local = name.rpartition(" ")
        prefix = "" if not uri else "xml:" if uri == _XML else f"n{number}:"
        attributes += f' xmlns:n{number}="{escape(uri, _ESCAPES)}"' if prefix[:1] == "n" else ""
        attributes += f' {prefix}{local}="{escape(value, _ESCAPES)}"'
    out.append(f"<{node.name}{declared}{attributes}>")
    for child in node.children:
        if isinstance(child, str):
            out.append(escape(child))
        else:
            _write(child, node.namespace, out)
    out.append(f"</{node.name}>")
