"""Parses and validates a received resource, and keeps the text of its members.

The received text is stored: only ``id`` and ``meta`` are replaced (http://hl7.org/fhir/R4/http.html#create), so that
``1.50`` is returned as ``1.50``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.resources import catalog, validate
from fhir_server.store import Row
from fhir_server.writing.references import has_readable_references, references, without_base_in_text


@dataclass(frozen=True, slots=True)
class Draft:
    """A valid received resource: its type, its parsed value, and the JSON text of each of its members."""

    type: str
    value: dict[str, Any]
    parts: Mapping[str, bytes]

    @property
    def id(self) -> str | None:
        return self.value.get("id")

    def references(self) -> frozenset[str]:
        """Every literal reference in it, as written."""
        return references(b",".join(self.parts.values()))


def parse_draft(text: bytes, type: str | None = None, *, base: str = "") -> Draft:
    """Parse and validate the JSON text of a resource, of ``type`` if one is given.

    Absolute references below ``base``, this server's FHIR base URL, become relative, so that a row has one name.  Raises
    Problem ``invalid`` with one issue for each defect.
    """
    text = without_base_in_text(text, base)
    value = jsontext.parse(text)
    if not has_readable_references(text, value):
        text = without_base_in_text(jsontext.unescape(text), base)
        value = jsontext.parse(text)
    if not isinstance(value, dict):
        raise Problem("invalid", "A resource is a JSON object.")
    name = value.get("resourceType")
    if not isinstance(name, str) or name not in catalog():
        raise Problem("invalid", "The body's resourceType is not a resource type of R4.")
    if type is not None and name != type:
        raise Problem("invalid", f"The body is a {name}; this URL takes a {type}.")
    issues = validate.check(name, value)
    if issues:
        raise Problem("invalid", issues[0].text, tuple(issues))
    # Compact, because the layout around a removed element would show that it was removed.
    return Draft(name, value, jsontext.members(jsontext.compact(text)))


def draft_of(row: Row) -> Draft:
    """A stored version as a draft.  It was valid when it was stored, so it is not validated again."""
    return Draft(row.type, jsontext.parse(row.body), jsontext.members(row.body))
