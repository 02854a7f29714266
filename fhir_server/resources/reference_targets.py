"""Checks a Reference: R4's grammar, the target types of its element, and contained resources (invariant ref-1).

http://hl7.org/fhir/R4/references.html#literal
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fhir_server.resources import definitions
from fhir_server.resources.references import LiteralReference, parse_reference
from fhir_server.resources.validation_run import Place, ValidationRun, quote

Check = Callable[[dict[str, Any], Place, ValidationRun], None]


def targets_check(targets: tuple[str, ...]) -> Check:
    """A check of a Reference's object against the target types of its element (() or Resource: any type)."""
    known = frozenset(definitions.types())
    allowed = known if not targets or "Resource" in targets else frozenset(targets)

    def check(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        text = node.get("reference")
        if type(text) is str:
            reference = parse_reference(text)
            if reference is None:
                run.add("value", f"{quote(text)} is not a literal reference of R4.", (place, "reference", -1))
            elif reference.kind == "fragment":
                _check_contained(text, allowed, place, run)
            elif (type_name := _disallowed_type(reference, allowed, known)) is not None:
                run.add("value", f"{quote(type_name)} is not an allowed target type here.", (place, "reference", -1))
        named = node.get("type")
        if type(named) is str and named not in allowed and named in known:
            run.add("value", f"{quote(named)} is not an allowed target type here.", (place, "type", -1))

    return check


def _disallowed_type(reference: LiteralReference, allowed: frozenset[str], known: frozenset[str]) -> str | None:
    # A URL may end in something that looks like a type, and another server may have types that R4 does not have.
    return reference.type if reference.type in known and reference.type not in allowed else None


def _check_contained(text: str, allowed: frozenset[str], place: Place, run: ValidationRun) -> None:
    if text == "#":
        return
    type_name = run.contained().get(text[1:])
    if type_name is None:
        run.add("invariant", f"ref-1: no contained resource has the id {quote(text[1:])}.", (place, "reference", -1))
    elif type_name not in allowed:
        run.add("value", "The contained resource is not of an allowed target type.", (place, "reference", -1))
