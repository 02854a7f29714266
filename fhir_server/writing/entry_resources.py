"""The resource of a Bundle's entry as JSON text, with its links to other entries resolved."""

from __future__ import annotations

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.writing.references import has_readable_references


def linked_resource(text: bytes, full_url: str, links: BundleLinks) -> bytes:
    """The resource in the text of an entry with this fullUrl.  Raises Problem ``invalid``, also if there is none."""
    body = jsontext.members(text).get("resource", b"")
    if not body:
        raise Problem("invalid", "An entry with POST, PUT or PATCH requires a resource.")
    if b"\\" in body and not has_readable_references(body, jsontext.parse(body)):
        body = jsontext.unescape(body)
    return links.rewrite(body, full_url)
