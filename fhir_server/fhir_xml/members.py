"""What the members of a type are in XML: their names, their order, and whether they are elements or attributes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element

FHIR: Final = "http://hl7.org/fhir"
XHTML: Final = "http://www.w3.org/1999/xhtml"

Kind = Literal["attribute", "primitive", "complex", "resource", "xhtml"]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a type.

    ``name``   in JSON and in XML; that of a choice has its datatype at the end
    ``order``  its place among the members
    ``type``   the datatype of a primitive; of a complex value, the path whose members it has
    ``many``   whether it is an array in JSON
    """

    name: str
    order: int
    kind: Kind
    type: str
    many: bool


@functools.cache
def members(path: str) -> Mapping[str, Member]:
    """The members of a type ("Observation"), a datatype or a backbone element ("Observation.component"), in order, by name.

    ``resourceType`` is not among them.  Raises KeyError for an unknown path.
    """
    rows = [row for row in definitions.elements(path.partition(".")[0]) if row.path.rpartition(".")[0] == path]
    found = [named for row in rows for named in _named(row)]
    return MappingProxyType({name: Member(name, order, *rest) for order, (name, *rest) in enumerate(found)})  # type: ignore[arg-type]


def _named(row: Element) -> Iterator[tuple[str, Kind, str, bool]]:
    name, many = row.path.rpartition(".")[2], row.max != "1"
    if row.like:
        yield name, "complex", row.like, many
        return
    for ref in row.types:
        own = name[:-3] + ref.code[0].upper() + ref.code[1:] if name.endswith("[x]") else name
        yield own, _kind(row, ref.code), row.path if ref.code in ("BackboneElement", "Element") else ref.code, many


def _kind(row: Element, datatype: str) -> Kind:
    if row.path == "Extension.url" or (row.path.endswith(".id") and not _is_of_resource(row.path)):
        return "attribute"
    if datatype == "xhtml":
        return "xhtml"
    if datatype == "Resource":
        return "resource"
    return "primitive" if datatype in definitions.primitives() else "complex"


def _is_of_resource(path: str) -> bool:
    owner, _, name = path.partition(".")
    return "." not in name and owner in definitions.types()
