"""Names of the people and places that resources refer to: as a reference says itself, otherwise as the resource does that came with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.display.texts import objects, plain

Json = dict[str, Any]


def with_names(value: Any, included: Mapping[str, Json]) -> Any:
    """A copy of a JSON value in which each reference to one of the ``included`` resources has a ``display``.

    Not those to patients: that a person's visit is with this person need not be said.
    """
    if isinstance(value, list):
        return [with_names(item, included) for item in value]
    if not isinstance(value, dict):
        return value
    copied = {name: with_names(inner, included) for name, inner in value.items()}
    target = value.get("reference")
    if not isinstance(target, str) or target.startswith("Patient/") or "display" in value:
        return copied
    if (found := included.get(target)) and (name := name_of(found)):
        copied["display"] = name
    return copied


def name_of(resource: Mapping[str, Any]) -> str:
    """The name of a person, an organization or a place; "" if the resource has none."""
    name = resource.get("name")
    if isinstance(name, str):
        return plain(name)
    for each in objects(name):
        if text := plain(each.get("text")) or _joined(each):
            return text
    who = resource.get("practitioner")
    return plain(who.get("display")) if isinstance(who, dict) else ""


def _joined(name: Mapping[str, Any]) -> str:
    parts = [*_strings(name.get("prefix")), *_strings(name.get("given")), plain(name.get("family")), *_strings(name.get("suffix"))]
    return " ".join(filter(None, parts))


def _strings(value: object) -> list[str]:
    return [plain(item) for item in value] if isinstance(value, list) else []
