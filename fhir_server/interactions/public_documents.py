"""Documents that need no access token and are the same for all callers: the CapabilityStatement, discovery, the OpenAPI document.

Each is built once for each of its forms, and again when packages or search parameters have changed.  An ETag lets
clients ask whether it has changed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from fhir_server.access.etags import names_tag
from fhir_server.errors import Problem
from fhir_server.interactions.accept import require_acceptable
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.subset import SHAPING, shape_of, subset
from fhir_server.packages.claims import Claims
from fhir_server.search.custom_parameters import CustomParameters, current
from fhir_server.search.suggestions import suggestion

Document = Callable[[Request], Awaitable[Response]]
Build = Callable[[Claims], dict[str, Any]]

# Public, so anyone may keep a copy; whether it is current is asked each time.
_KEPT: Final = (b"cache-control", b"no-cache")
_FORMS: Final = 64


def metadata(modes: Mapping[str, Build], claims: Callable[[], Awaitable[Claims]]) -> Document:
    """``GET metadata``, with ``mode``, ``_summary`` and ``_elements`` (http://hl7.org/fhir/R4/http.html#capabilities).

    ``modes``: builds the resource of each mode; the first one is meant if the request names none.  ``claims``: what packages claim now.
    """

    @lru_cache(len(modes))
    def whole(mode: str, claimed: Claims, _: CustomParameters) -> bytes:
        return _text(modes[mode](claimed))

    @lru_cache(_FORMS)
    def shaped(mode: str, claimed: Claims, custom: CustomParameters, pairs: tuple[tuple[str, str], ...]) -> bytes:
        return subset(whole(mode, claimed, custom), shape_of(pairs))

    async def document(request: Request) -> Response:
        require_acceptable(request)
        mode = dict(request.query).get("mode", next(iter(modes)))
        if mode not in modes:
            raise Problem("invalid", f"The CapabilityStatement has no mode {mode[:80]!r}.{suggestion(mode, modes)}")
        return _answer(request, shaped(mode, await claims(), current(), tuple(pair for pair in request.query if pair[0] in SHAPING)), JSON)

    return document


def json_document(build: Callable[[Request], bytes]) -> Document:
    """A document that is plain JSON, whatever the client accepts."""

    async def document(request: Request) -> Response:
        return _answer(request, build(request), b"application/json")

    return document


def _answer(request: Request, body: bytes, media: bytes) -> Response:
    """The document, or 304 if the client has it."""
    tag = blake2b(body, digest_size=8).hexdigest()
    headers = ((b"content-type", media), (b"etag", f'W/"{tag}"'.encode()), _KEPT)
    known = request.headers.get("if-none-match")
    return Response(304, headers=headers) if known is not None and names_tag(known, tag) else Response(200, body, headers)


def _text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
