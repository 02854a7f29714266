"""The request that an entry of a batch or transaction makes (http://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry.request).

It goes through the routing table as a request of its own: what a URL means does not depend on where it stands.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from fhir_server.errors import Problem
from fhir_server.interactions import criteria
from fhir_server.interactions.accept import require_acceptable
from fhir_server.interactions.messages import Request, parse_query
from fhir_server.interactions.routing import Route, match_route
from fhir_server.resources.server_base import ServerBase

_INHERITED: Final = ("authorization", "prefer", "content-type")
_CONDITIONS: Final = {
    "ifMatch": "if-match",
    "ifNoneMatch": "if-none-match",
    "ifModifiedSince": "if-modified-since",
    "ifNoneExist": "if-none-exist",
}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:|//")
_WRITES: Final = ("create", "update", "patch", "delete")


def entry_request(member: Mapping[str, Any], request: Request, server: ServerBase) -> Request:
    """The request of an entry's ``request`` element, in a Bundle that came with ``request``.  Raises Problem ``invalid``."""
    path, mark, query = str(member["url"]).partition("?")
    method = str(member["method"])
    if "#" in path or "#" in query:
        raise Problem("invalid", "The entry's request.url has a fragment; a # in a value is written %23.")
    headers = {name: request.headers[name] for name in _INHERITED if name in request.headers}
    headers |= {header: str(member[element]) for element, header in _CONDITIONS.items() if element in member}
    if "ifModifiedSince" in member and method not in ("GET", "HEAD"):
        raise Problem("invalid", f"An entry with {method} does not take ifModifiedSince.")
    # JSON may hold characters that a URL would have percent-encoded.
    pairs = parse_query(quote(query, safe=string.punctuation).encode()) if mark else ()
    return msgspec.structs.replace(request, method=method, path=_path(path, server), query=pairs, headers=headers, body=b"")


def _path(url: str, server: ServerBase) -> tuple[str, ...]:
    """The path of a URL below the FHIR base, split as that of a request.  Raises Problem ``invalid`` for a URL of another server."""
    own = server.relative(url)
    if own is None and _SCHEME.match(url):
        raise Problem("invalid", "The entry's request.url leads to another server.")
    if own is not None and own.startswith("/"):
        raise Problem("not_found", "The server has no resource or operation at this URL.")
    return tuple(segment for segment in (unquote(url) if own is None else own).split("/") if segment)


def route_of(request: Request, *, batch: bool) -> Route:
    """The route of an entry's request.

    Raises Problem ``not_found``, ``method``, ``not_acceptable`` or ``invalid`` as for a request of its own, and ``invalid`` for what a
    Bundle cannot contain.
    """
    if not request.path and request.method not in ("GET", "HEAD"):  # the base, which takes Bundles
        require_acceptable(request)
        if request.method != "POST":
            raise Problem("method", f"This URL does not support {request.method}.")
        raise Problem("invalid", "A Bundle cannot be part of a Bundle.")
    route = match_route(request, in_bundle=True)
    require_acceptable(request, route.media)
    if not route.batchable:
        raise Problem("invalid", "This request cannot be part of a Bundle.")
    if batch and route.body == "question":
        return route
    if route.code not in _WRITES and route.method == "POST":
        raise Problem("invalid", "A search in a Bundle requires GET, and $validate a batch.")
    if route.code not in _WRITES and route.read_handler is None:
        raise Problem("invalid", f"This request cannot be part of a {'batch' if batch else 'transaction'}.")
    if route.conditional:
        criteria.of_url(request)
    elif route.code in _WRITES:
        criteria.require_none(request)
    return route
