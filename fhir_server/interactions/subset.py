"""``_elements`` and ``_summary``: fewer members of a resource than its caller may see (http://hl7.org/fhir/R4/search.html#elements)."""

from __future__ import annotations

from fhir_server import jsontext
from fhir_server.resources import summary
from fhir_server.search.query import Query

_ALWAYS = frozenset({"resourceType", "id", "meta"})
_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'


def subset(body: bytes, asked: Query) -> bytes:
    """The body cut down as the query asks, and tagged SUBSETTED where it was asked to be."""
    if not asked.elements and asked.summary in (None, "false", "count"):
        return body
    parts = jsontext.members(body)
    type = parts["resourceType"].decode().strip('"')
    kept = _members_to_keep(type, asked, parts)
    parts = {name: text for name, text in parts.items() if name in kept or (name[:1] == "_" and name[1:] in kept)}
    meta = jsontext.members(parts["meta"])
    tags = jsontext.items(meta["tag"]) if "tag" in meta else []
    meta["tag"] = b"[" + b",".join([*tags, _SUBSETTED]) + b"]"
    parts["meta"] = jsontext.join_members(meta)
    return jsontext.join_members(parts)


def _members_to_keep(type: str, asked: Query, parts: dict[str, bytes]) -> frozenset[str]:
    required = summary.required(type)
    if asked.elements:
        return _ALWAYS | required | frozenset(asked.elements)
    if asked.summary == "text":
        return _ALWAYS | required | {"text"}
    if asked.summary == "data":
        return frozenset(parts) - {"text"}
    return _ALWAYS | required | summary.summary(type)
