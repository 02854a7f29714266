"""The members that R4 gives an element, by their JSON names."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element


class Member(NamedTuple):
    """A member of an element.

    ``name``     its name in FHIRPath: that of a choice element is without the datatype
    ``kind``     its datatype, the path of the element whose members it has, or ``Resource``
    ``repeats``  whether it is an array
    """

    name: str
    kind: str
    repeats: bool


@functools.lru_cache(maxsize=512)
def members(kind: str) -> Mapping[str, Member]:
    """By JSON name: the members of a type, of a datatype or of the element at a path; none for a primitive or an unknown kind."""
    type = kind.partition(".")[0]
    if type not in definitions.datatypes() and type not in definitions.types() and type not in ("BackboneElement", "Element"):
        return MappingProxyType({})
    rows = definitions.elements(type)
    return MappingProxyType({name: member for row in rows if row.path.rpartition(".")[0] == kind for name, member in _members(row)})


def _members(row: Element) -> Iterator[tuple[str, Member]]:
    name, repeats = row.path.rpartition(".")[2], row.max != "1"
    if row.like or not row.types:
        yield name, Member(name, row.like, repeats)
    elif name.endswith("[x]"):
        base = name.removesuffix("[x]")
        for ref in row.types:
            yield base + ref.code[0].upper() + ref.code[1:], Member(base, ref.code, repeats)
    else:
        kind = row.types[0].code
        yield name, Member(name, row.path if kind in ("BackboneElement", "Element") else kind, repeats)
