"""Templates of the pages of linked accounts. They use the layout of the sign-in pages."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from fhir_server.smart.core.context import SmartContext
from fhir_server.web.forms import SAME_ORIGIN_OPENER, page_headers

_templates = Environment(
    loader=ChoiceLoader([PackageLoader("fhir_server.linking.pages", ""), PackageLoader("fhir_server.smart.pages", "")]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(smart: SmartContext, name: str, status: int = 200, **view: Any) -> Response:
    """Render the template ``name`` with the headers of all pages."""
    values: dict[str, Any] = {"problem": "", "session": None} | view
    text = _templates.get_template(name).render(organization=smart.organization, **values)
    return Response(text, status, page_headers() | SAME_ORIGIN_OPENER, "text/html; charset=utf-8")
