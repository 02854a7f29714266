"""Parses and validates a received resource, and keeps the text of its members.

The received text is stored: only ``id`` and ``meta`` are replaced (http://hl7.org/fhir/R4/http.html#create), so that
``1.50`` is returned as ``1.50``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server import jsontext
from fhir_server.errors import Issue, Problem
from fhir_server.resources import catalog, validate
from fhir_server.resources.references import parse_reference, versioned_target
from fhir_server.store import Row
from fhir_server.writing import own_urls, stored_bundles
from fhir_server.writing.references import found_references, has_readable_references, references


@dataclass(frozen=True, slots=True)
class Draft:
    """A valid received resource: its type, its parsed value, the JSON text of each of its members, its literal references as written."""

    type: str
    value: dict[str, Any]
    parts: Mapping[str, bytes]
    references: frozenset[str]

    @property
    def id(self) -> str | None:
        return self.value.get("id")

    @property
    def conditional_references(self) -> frozenset[str]:
        """Its references of the form ``Type?criteria``, which must be resolved before it is stored; a stored Bundle keeps its own."""
        return frozenset(text for text in self.references if "?" in text and _kind(text) == "conditional" and self.type != "Bundle")

    def local_targets(self, base: str) -> frozenset[str]:
        """The ``Type/id`` of the resources of this server that it refers to."""
        if self.type == "Bundle":
            return stored_bundles.local_targets(self.value, base)
        return frozenset("/".join(target) for target in map(versioned_target, self.references) if target is not None)

    def with_id(self, id: str) -> Draft:
        """The draft with this logical id."""
        return Draft(self.type, self.value | {"id": id}, {**self.parts, "id": b'"%s"' % id.encode()}, self.references)

    def with_text(self, text: bytes) -> Draft:
        """The draft with another JSON text, which differs in references to resources of the same types only, and so is valid too."""
        return Draft(self.type, jsontext.parse(text), jsontext.members(text), references(text))


def parse_draft(text: bytes, type: str | None = None, *, base: str = "", conditional: bool = False) -> Draft:
    """Parse and validate the JSON text of a resource, of ``type`` if one is given.

    References to this server, whose FHIR base URL is ``base``, become relative, so that a row has one name.  ``conditional``
    accepts references of the form ``Type?criteria``, which the caller resolves.  Raises Problem ``invalid`` with one issue for
    each defect.
    """
    # Compact, because the layout around a removed element would show that it was removed.
    value, text = jsontext.parse_compact(text)
    if not has_readable_references(text, value):
        text = jsontext.unescape(text)
    doubts = own_urls.doubts(text, base)
    if doubts.own:
        value, text = jsontext.parse_compact(own_urls.normalize(text, value, base))
    found = references(text)
    if not isinstance(value, dict):
        raise Problem("invalid", "A resource is a JSON object.")
    name = value.get("resourceType")
    if not isinstance(name, str) or name not in catalog():
        raise Problem("invalid", "The body's resourceType is not a resource type of R4.")
    if type is not None and name != type:
        raise Problem("invalid", f"The body is a {name}; this URL takes a {type}.")
    issues = (*validate.check(name, value), *own_urls.issues(value, doubts, base), *_unresolved(name, value, found, conditional))
    if issues:
        raise Problem("invalid", issues[0].text, issues)
    return Draft(name, value, jsontext.members(text), found)


def _unresolved(name: str, value: dict[str, Any], texts: frozenset[str], conditional: bool) -> list[Issue]:
    """One issue for each reference that no read could follow: a URN, and ``Type?criteria`` unless ``conditional``."""
    if not any(text[:4] == "urn:" or "?" in text for text in texts):
        return []
    refused = {"urn", "conditional"} - ({"conditional"} if conditional else set())
    if name == "Bundle":  # its entries name one another by URN, and those of a transaction by criteria too
        refused = set() if value.get("type") in ("batch", "transaction") else {"conditional"}
    found = [reference for reference in found_references(value, name) if _kind(reference.text) in refused]
    return [Issue("value", f"The reference {reference.text[:80]!r} does not resolve.", (reference.place,)) for reference in found]


def _kind(text: str) -> str | None:
    reference = parse_reference(text)
    return reference.kind if reference is not None else None


def draft_of(row: Row) -> Draft:
    """A stored version as a draft.  It was valid when it was stored, so it is not validated again."""
    return Draft(row.type, jsontext.parse(row.body), jsontext.members(row.body), references(row.body))
