"""``_elements`` and ``_summary``: responses with only some of a resource's elements (http://hl7.org/fhir/R4/search.html#elements)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.resources import summary
from fhir_server.search.result_parameters import ResultParameters

SHAPING: Final = frozenset({"_elements", "_summary"})
"""The parameters that choose elements."""

_ALWAYS = frozenset({"resourceType", "id", "meta"})
_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'


class Shape(Protocol):
    """What ``_elements`` and ``_summary`` ask for."""

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements of ``_elements``."""

    @property
    def summary(self) -> str:
        """The value of ``_summary``."""


def shape_of(pairs: Sequence[tuple[str, str]]) -> Shape:
    """What the parameters ``_elements`` and ``_summary`` of a read ask for.  Raises Problem ``invalid``."""
    parameters = ResultParameters(())
    for name, value in pairs:
        parameters.add(name, value)
    if parameters.summary == "count":
        raise Problem("invalid", "Only a search has _summary=count.")
    return parameters


def subset(body: bytes, shape: Shape) -> bytes:
    """Return the elements of ``body`` that are asked for, tagged SUBSETTED; or ``body`` if all are."""
    if not shape.elements and shape.summary in ("false", "count"):
        return body
    members = jsontext.members(body)
    type = members["resourceType"].decode().strip('"')
    names = _included_members(type, shape, members)
    members = {name: text for name, text in members.items() if name in names or (name[:1] == "_" and name[1:] in names)}
    meta = jsontext.members(members.get("meta", b"{}"))
    tags = jsontext.items(meta["tag"]) if "tag" in meta else []
    meta["tag"] = b"[" + b",".join([*tags, _SUBSETTED]) + b"]"
    members["meta"] = jsontext.join_members(meta)
    return jsontext.join_members(members)


def _included_members(type: str, shape: Shape, members: dict[str, bytes]) -> frozenset[str]:
    required = summary.required(type)
    if shape.elements:
        return _ALWAYS | required | frozenset(shape.elements)
    if shape.summary == "text":
        return _ALWAYS | required | {"text"}
    if shape.summary == "data":
        return frozenset(members) - {"text"}
    return _ALWAYS | required | summary.summary(type)
