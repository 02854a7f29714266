"""Page templates, the style sheet and the logo.  The pages use no JavaScript."""

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
    """Render a template as a page, with the headers of :func:`~fhir_server.web.forms.page_headers`."""
    values: dict[str, Any] = {"problem": "", "session": None, "mail": smart.mail.is_available} | view
    text = _templates.get_template(name).render(organization=smart.organization, demo=smart.mode == "demo", **values)
    return Response(text, status, page_headers(redirect_uri), "text/html; charset=utf-8")


async def static(name: str) -> Response:
    """Serve the style sheet or the logo; 404 for any other name."""
    if name not in _STATIC:
        return Response(status_code=404)
    body = (files(__package__ or "") / name).read_bytes()
    # Cross-origin: apps that list health systems load the logo from the URL in the brand bundle.
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(body, 200, headers, _STATIC[name])
