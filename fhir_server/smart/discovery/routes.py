"""Routes of the public documents: the SMART style document and the user-access brands Bundle."""

from __future__ import annotations

import hashlib
import json

from fastapi import APIRouter, Request, Response

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.discovery import brands
from fhir_server.smart.tokens import style
from fhir_server.web.forms import CORS, PREFLIGHT

_HEADERS = CORS | {"Access-Control-Expose-Headers": "ETag"}


def add_documents(routes: APIRouter, smart: SmartContext) -> None:
    """Add the routes of both documents."""
    content = brands.bundle(smart, 0)  # without the time of this start, so that the ETag depends on the content only
    etag = f'W/"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"'
    brand = json.dumps(brands.bundle(smart, smart.now())).encode()

    async def style_document() -> Response:
        return Response(style.STYLE, 200, CORS | {"Cache-Control": "public, max-age=31536000, immutable"}, "application/json")

    async def brand_bundle(request: Request) -> Response:
        headers = _HEADERS | {"ETag": etag, "Cache-Control": "public, max-age=3600"}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag.removeprefix("W/") in known:
            return Response(None, 304, headers)
        return Response(brand, 200, headers, "application/fhir+json")

    async def preflight() -> Response:
        return Response(status_code=204, headers=PREFLIGHT)

    for path, document in ((style.PATH, style_document), (brands.PATH, brand_bundle)):
        routes.add_api_route(path, document, methods=["GET", "HEAD"])
        routes.add_api_route(path, preflight, methods=["OPTIONS"])
