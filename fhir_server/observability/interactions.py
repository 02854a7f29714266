"""Names what a request is, without anything that it says: for metrics and log lines.

A name comes from the method and from the shape of the path.  It never contains a part of the path.
"""

from __future__ import annotations

from typing import Final

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_TYPE: Final = {"GET": "search-type", "POST": "create", "PUT": "update", "DELETE": "delete"}
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
        return "capabilities" if segments[0] == "metadata" else _OF_TYPE.get(method, "other")
    return _OF_INSTANCE.get(method, "other") if len(segments) == 2 else "other"
