"""The ``div`` of a narrative: its text in JSON is XML of its own, so it stays as it is written wherever it can."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from fhir_server.errors import Problem
from fhir_server.fhir_xml.members import XHTML

_NAMESPACE: Final = f"{{{XHTML}}}"
_FOREIGN: Final = f"A narrative consists of elements of {XHTML}, and its attributes have no namespace."
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_declaration = re.compile(r"<\?|<!(?!--)").search


def standing_alone(text: str, prefixes: Iterable[str]) -> str:
    """The text of a narrative's ``div`` as a document of its own: without processing instructions, CDATA and prefixes from outside.

    ``prefixes``: those that stand for XHTML around it, "" for names without one.  It has no document type.  Raises Problem ``invalid``.
    """
    if _declaration(text) is None and _is_alone(text):
        return text
    declared = "".join(f' xmlns{prefix and ":" + prefix}="{XHTML}"' for prefix in prefixes)
    try:
        (root,) = ElementTree.fromstring(f"<around{declared}>{text}</around>")
    except ElementTree.ParseError:  # it has a prefix that stands for something else
        raise Problem("invalid", _FOREIGN) from None
    out: list[str] = []
    _write(root, out, f' xmlns="{XHTML}"')
    return "".join(out)


def _is_alone(text: str) -> bool:
    try:
        return all(node.tag.startswith(_NAMESPACE) for node in ElementTree.fromstring(text).iter())
    except ElementTree.ParseError:
        return False


def _write(node: ElementTree.Element, out: list[str], declared: str = "") -> None:
    if not isinstance(node.tag, str) or not node.tag.startswith(_NAMESPACE):
        raise Problem("invalid", _FOREIGN)
    name = node.tag.removeprefix(_NAMESPACE)
    attributes = "".join(f" {_attribute(key)}={quoteattr(value)}" for key, value in node.attrib.items())
    out.append(f"<{name}{declared}{attributes}>{escape(node.text or '')}")
    for child in node:
        _write(child, out)
        out.append(escape(child.tail or ""))
    out.append(f"</{name}>")


def _attribute(name: str) -> str:
    if name.startswith(_XML):
        return "xml:" + name.removeprefix(_XML)
    if name.startswith("{"):
        raise Problem("invalid", _FOREIGN)
    return name
