"""Reads HL7's R4 (4.0.1) definitions from ``r4/definitions.json.gz``, one type at a time.

The file holds only what the server uses. It is a series of gzip members, one for each type or datatype, so that a process loads only
the types that it needs. The first member is the index: name -> offset and length, counted from the end of the index.
``scripts/build_definitions.py`` writes the file from HL7's package ``hl7.fhir.r4.core``.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

FILE = Path(__file__).parent / "r4" / "definitions.json.gz"

ParameterKind = Literal["number", "date", "string", "token", "reference", "composite", "quantity", "uri", "special"]


@dataclass(frozen=True, slots=True)
class TypeRef:
    """One allowed type of an element; ``targets`` are resource types for Reference and canonical, profile names otherwise."""

    code: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invariant:
    """A constraint of the definitions: its key, "error" or "warning", HL7's wording and the FHIRPath expression."""

    key: str
    severity: str
    human: str
    expression: str


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a StructureDefinition's snapshot.

    ``codes``    system -> codes of a required binding; None without one, or if HL7's package does not enumerate the codes
    ``like``     path of the element whose definition this one shares (contentReference), or ""
    ``summary``  whether R4 marks it as part of the summary (``_summary=true``)
    """

    path: str
    min: int
    max: str
    types: tuple[TypeRef, ...]
    codes: Mapping[str, tuple[str, ...]] | None
    like: str
    invariants: tuple[Invariant, ...]
    summary: bool


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter of one type; every branch of ``expression`` begins with the name of the type.

    ``targets``     resource types that a reference parameter may refer to
    ``components``  of a composite: (kind, expression relative to each node that ``expression`` selects)
    """

    code: str
    kind: ParameterKind
    expression: str
    targets: tuple[str, ...] = ()
    components: tuple[tuple[str, str], ...] = ()


@functools.cache
def types() -> tuple[str, ...]:
    """The names of R4's concrete resource types, sorted."""
    return tuple(_head()["resources"])


@functools.cache
def datatypes() -> frozenset[str]:
    """The names of R4's complex datatypes, BackboneElement and Element aside."""
    return frozenset(_head()["datatypes"])


@functools.cache
def primitives() -> Mapping[str, str | None]:
    """Primitive datatype -> the regular expression HL7 gives for it, or None."""
    return MappingProxyType(_head()["primitives"])


@functools.lru_cache(maxsize=16)
def elements(name: str) -> tuple[Element, ...]:
    """The snapshot of a resource type or complex datatype, in order.  Raises KeyError for an unknown name."""
    part = _part(name)
    return tuple(_element(row, part["codes"]) for row in part["elements"])


@functools.cache
def search_parameters(name: str) -> tuple[SearchParameter, ...]:
    """The parameters of a resource type, sorted, with those of every resource (``_id`` ...).  Raises KeyError for an unknown type.

    R4's parameters on extensions and its parameters without an expression (``_text``, ``_content``, ``_filter``) are not included.
    """
    return tuple(_parameter(row) for row in _search()[name])


@functools.cache
def compartments() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Type of compartment -> resource type -> the parameters by which its resources belong to it; types outside have no entry.

    http://hl7.org/fhir/R4/compartmentdefinition.html.  The parameter ``{def}`` stands for the resource after which it is named.
    """
    found: dict[str, dict[str, list[str]]] = _head()["compartments"]
    return MappingProxyType(
        {of: MappingProxyType({name: tuple(codes) for name, codes in members.items()}) for of, members in found.items()}
    )


@functools.cache
def references(name: str) -> Mapping[str, tuple[str, ...]]:
    """Element path, without the type's name -> the types it may refer to ("Resource" for any)."""
    return MappingProxyType({path: tuple(targets.split("|")) for path, targets in _head()["references"][name].items()})


def _element(row: dict[str, Any], codes: Mapping[str, Mapping[str, list[str]]]) -> Element:
    bound = codes[row["codes"]] if "codes" in row else None
    return Element(
        row["path"],
        row["min"],
        row["max"],
        tuple(_type(text) for text in row["types"]),
        {system: tuple(members) for system, members in bound.items()} if bound is not None else None,
        row.get("like", ""),
        tuple(Invariant(*rule) for rule in row.get("rules", ())),
        row.get("summary", False),
    )


def _type(text: str) -> TypeRef:
    code, _, targets = text.partition(":")
    return TypeRef(code, tuple(targets.split("|")) if targets else ())


def _parameter(row: dict[str, Any]) -> SearchParameter:
    components = tuple((name, expression) for name, expression in row.get("components", ()))
    return SearchParameter(row["code"], row["kind"], row["expression"], tuple(row.get("targets", ())), components)


@functools.cache
def _search() -> dict[str, list[dict[str, Any]]]:
    parameters: dict[str, list[dict[str, Any]]] = _part("$search")
    return parameters


@functools.cache
def _head() -> dict[str, Any]:
    head: dict[str, Any] = _part("$head")
    return head


def _part(name: str) -> Any:
    index, start = _index()
    offset, length = index[name]
    with FILE.open("rb") as file:
        file.seek(start + offset)
        return json.loads(gzip.decompress(file.read(length)))


@functools.cache
def _index() -> tuple[dict[str, tuple[int, int]], int]:
    content = FILE.read_bytes()
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    index = json.loads(reader.decompress(content))
    return index, len(content) - len(reader.unused_data)
