"""``_elements`` and ``_summary``: responses with only some of a resource's elements (http://hl7.org/fhir/R4/search.html#elements)."""

from __future__ import annotations

from fhir_server import jsontext
from fhir_server.resources import summary
from fhir_server.search.query import Query

_ALWAYS = frozenset({"resourceType", "id", "meta"})
_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'


def subset(body: bytes, query: Query) -> bytes:
    """Return the elements of ``body`` that the query asks for, tagged SUBSETTED; or ``body`` if it asks for all."""
    if not query.elements and query.summary in (None, "false", "count"):
        return body
    members = jsontext.members(body)
    type = members["resourceType"].decode().strip('"')
    names = _included_members(type, query, members)
    members = {name: text for name, text in members.items() if name in names or (name[:1] == "_" and name[1:] in names)}
    meta = jsontext.members(members["meta"])
    tags = jsontext.items(meta["tag"]) if "tag" in meta else []
    meta["tag"] = b"[" + b",".join([*tags, _SUBSETTED]) + b"]"
    members["meta"] = jsontext.join_members(meta)
    return jsontext.join_members(members)


def _included_members(type: str, query: Query, members: dict[str, bytes]) -> frozenset[str]:
    required = summary.required(type)
    if query.elements:
        return _ALWAYS | required | frozenset(query.elements)
    if query.summary == "text":
        return _ALWAYS | required | {"text"}
    if query.summary == "data":
        return frozenset(members) - {"text"}
    return _ALWAYS | required | summary.summary(type)
