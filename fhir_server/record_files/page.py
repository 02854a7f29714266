"""Makes the HTML page of a record: one file that fetches nothing."""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from fhir_server.record_files.content import Content

_templates: Final = Environment(
    loader=PackageLoader("fhir_server.record_files"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def page(content: Content) -> bytes:
    """The page as UTF-8."""
    return _templates.get_template("record_file.html").render(content=content).encode()
