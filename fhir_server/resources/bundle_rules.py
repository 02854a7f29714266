"""R4's rules for a Bundle whose entries are processed one by one (http://hl7.org/fhir/R4/bundle.html#invs).

They are checked before anything is done: structure and invariants of the Bundle itself.  Each entry's resource is validated where it
is processed, so that a batch refuses only the entries that are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fhir_server.errors import Issue, Problem
from fhir_server.resources import validate
from fhir_server.resources.invariants import ENTRY_ELEMENTS


def require_valid(bundle: Mapping[str, Any]) -> None:
    """Require that a Bundle follows R4, apart from the content of its entries' resources.

    Raises Problem ``invalid`` with one issue for each defect.
    """
    entries = bundle.get("entry")
    outside = dict(bundle)
    if entries == []:
        del outside["entry"]  # R4's JSON has no empty arrays, but some clients send one for a Bundle without entries
    elif isinstance(entries, list):
        outside["entry"] = [without_content(entry) for entry in entries]
    if issues := [_with_entry(issue, outside) for issue in validate.check("Bundle", outside)]:
        raise Problem("invalid", issues[0].text, tuple(issues))


def _with_entry(issue: Issue, bundle: Mapping[str, Any]) -> Issue:
    """Name the first entry that breaks a rule about all entries of a Bundle: it may have thousands."""
    name, kinds = ENTRY_ELEMENTS.get(issue.text.partition(":")[0], ("", frozenset()))
    entries = bundle.get("entry")
    if not name or not isinstance(entries, list):
        return issue
    kind = bundle.get("type")
    number = next((n for n, entry in enumerate(entries) if isinstance(entry, dict) and (name in entry) != (kind in kinds)), None)
    if number is None:
        return issue
    text = f"{issue.text.removesuffix('.')}. Entry {number} of this {kind} has {'no' if kind in kinds else 'a'} {name}."
    return replace(issue, text=text, expression=(f"Bundle.entry[{number}]",))


def require_valid_if_processed(value: Any) -> None:
    """As :func:`require_valid`, for a received body that may be something else.  Raises Problem ``invalid``."""
    is_bundle = isinstance(value, dict) and value.get("resourceType") == "Bundle" and isinstance(value.get("entry", []), list)
    if is_bundle and value.get("type") in ("batch", "transaction"):
        require_valid(value)


def without_content(entry: Any) -> Any:
    """An entry with a resource that is always valid in place of its own."""
    if isinstance(entry, dict) and isinstance(entry.get("resource"), dict):
        return {**entry, "resource": {"resourceType": "Parameters"}}
    return entry
