"""Names what a request is, without anything that it says: for metrics, log lines and traces.

A name comes from the method and from the shape of the path.  It never contains a part of the path.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LITERALS: Final = frozenset({"metadata", "openapi.json", "_search", "_history", ".well-known", "smart-configuration"})
_PLACES: Final = ("{type}", "{id}", "{operation}", "{version}")
_OF_TYPE: Final = {"GET": "search-type", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_INSTANCE: Final = {"GET": "read", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def interaction_name(method: str, path: str) -> str:
    """Return the name of an interaction of the FHIR API, ``oauth`` or ``page``."""
    if not path.startswith("/fhir"):
        return "oauth" if path.startswith(("/oauth/", "/.well-known/")) else "page"
    if "$" in path:
        return "operation"
    method = "GET" if method == "HEAD" else method
    segments = path[6:].rstrip("/").split("/") if len(path) > 6 else []
    if not segments:
        return "bundle" if method == "POST" else "other"
    if "_history" in segments:
        return "vread" if len(segments) == 4 else "history"
    if segments[-1] == "_search":
        return "search-type"
    if len(segments) == 1:
        return "capabilities" if segments[0] in ("metadata", "openapi.json") else _OF_TYPE.get(method, "other")
    return _OF_INSTANCE.get(method, "other") if len(segments) == 2 else "other"


def route_of(path: str) -> str:
    """The route of a path of the FHIR API, with placeholders for all that callers choose; "" for any other path."""
    if path != "/fhir" and not path.startswith("/fhir/"):
        return ""
    segments = path[6:].rstrip("/").split("/") if len(path) > 6 else []
    if len(segments) > len(_PLACES):
        return "/fhir/{other}"
    named = (
        segment if segment in _LITERALS else "{operation}" if segment[:1] == "$" else place
        for segment, place in zip(segments, _PLACES, strict=False)
    )
    return "/".join(("/fhir", *named))


def type_in(path: str, types: Collection[str]) -> str:
    """The resource type that a path of the FHIR API names; "" if it names none of ``types``."""
    name = path[6:].partition("/")[0] if path.startswith("/fhir/") else ""
    return name if name in types else ""
