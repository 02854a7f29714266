"""Finds the elements of type uri, url, oid and uuid, and the narratives, of a parsed resource, by R4's definitions.

A canonical is not among them: it names a definition, and is not a link (http://hl7.org/fhir/R4/http.html#trules).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element, TypeRef

_LINKS: Final = frozenset({"uri", "url", "oid", "uuid", "xhtml"})


class UriValue(NamedTuple):
    """The value of one such element: its path, its datatype (``xhtml`` for a narrative) and its text."""

    path: Path
    datatype: str
    text: str


def uri_values(resource: Mapping[str, Any]) -> Iterator[UriValue]:
    """All such values in a resource, in the resources within it and in its extensions; unknown members are passed over."""
    yield from _within(resource, "Resource", ())


def _within(node: Any, kind: str, path: Path) -> Iterator[UriValue]:
    """``kind``: a datatype, or the path of the element whose children the node has."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _within(item, kind, (*path, index))
    elif kind in _LINKS:
        if isinstance(node, str):
            yield UriValue(path, kind, node)
    elif isinstance(node, dict):
        name = node.get("resourceType") if kind == "Resource" else kind
        members = _members(name) if isinstance(name, str) and (kind != "Resource" or name in definitions.types()) else {}
        for key, value in node.items():
            inner = members.get(key) or ("Element" if key[:1] == "_" else None)
            if inner is not None and isinstance(value, dict | list | str):
                yield from _within(value, inner, (*path, key))


@functools.cache
def _members(path: str) -> Mapping[str, str]:
    """JSON name -> datatype, or path of the element, of the children that can be or hold links."""
    rows = definitions.elements(path.partition(".")[0])
    return {name: kind for row in rows if row.path.rpartition(".")[0] == path for name, kind in _names(row) if _may_hold_links(kind)}


def _names(row: Element) -> Iterator[tuple[str, str]]:
    name = row.path.rpartition(".")[2]
    if row.like or not row.types:
        yield name, row.like
    for ref in row.types:
        yield (name[:-3] + ref.code[0].upper() + ref.code[1:] if name.endswith("[x]") else name), _kind(row, ref)


def _kind(row: Element, ref: TypeRef) -> str:
    return row.path if ref.code in ("BackboneElement", "Element") else ref.code


def _may_hold_links(kind: str) -> bool:
    return kind in _LINKS or (bool(kind) and kind not in definitions.primitives() and "/" not in kind)
