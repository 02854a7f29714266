"""Rows that are common to all patients: which of them say nothing of one patient (docs/policy.md, "How a resource is labeled")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# The members of a definition of a drug or substance that says nothing of the patient for whom somebody wrote it.
_OF_DEFINITIONS: Final = frozenset(
    {"resourceType", "id", "meta", "language", "code", "status", "category", "form", "doseForm", "amount", "ingredient", "isActive"}
)
_SAYS_MORE: Final = frozenset({"text", "extension", "modifierExtension", "reference", "identifier"})


def is_specific(resource: Mapping[str, Any]) -> bool:
    """Whether a row of a common data class holds more than codes and amounts: text, extensions, contained rows, a batch, an identifier."""
    return not resource.keys() <= _OF_DEFINITIONS or any(_says_more(value) for name, value in resource.items() if name != "meta")


def _says_more(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value.keys() & _SAYS_MORE) or any(map(_says_more, value.values()))
    return isinstance(value, list) and any(map(_says_more, value))
