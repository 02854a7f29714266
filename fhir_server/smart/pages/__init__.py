"""The pages themselves: templates, one style sheet, a logo; no JavaScript."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from fastapi import Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from fhir_server.smart.core.context import SmartContext
from fhir_server.web.forms import page_headers

_STATIC: Final = {"style.css": "text/css; charset=utf-8", "logo.svg": "image/svg+xml; charset=utf-8"}
_templates = Environment(
    loader=PackageLoader("fhir_server.smart.pages", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(smart: SmartContext, name: str, status: int = 200, redirect_uri: str = "", **view: Any) -> Response:
    """The page of this template, with the headers every page has."""
    shown: dict[str, Any] = {"problem": "", "session": None} | view
    text = _templates.get_template(name).render(organization=smart.organization, demo=smart.mode == "demo", **shown)
    return Response(text, status, page_headers(redirect_uri), "text/html; charset=utf-8")


async def static(name: str) -> Response:
    """The style sheet or the logo."""
    if name not in _STATIC:
        return Response(status_code=404)
    body = (files(__package__ or "") / name).read_bytes()
    # Apps that list health systems show the logo that the brand bundle names.
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(body, 200, headers, _STATIC[name])
