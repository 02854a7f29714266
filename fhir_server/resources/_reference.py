"""What a Reference may point at: the target types of its element, and what is contained (invariant ref-1).

http://hl7.org/fhir/R4/references.html#literal
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fhir_server.resources import definitions
from fhir_server.resources._context import Place, ValidationRun, quote

# [base/]Type/id[/_history/version], or Type?criteria (a conditional reference, in transactions only)
_literal = re.compile(
    r"(https?://[^?#]*/)?([A-Z][A-Za-z]+)(?:/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?|\?.*)"
).fullmatch

Check = Callable[[dict[str, Any], Place, ValidationRun], None]


def targets_check(targets: tuple[str, ...]) -> Check:
    """A check of a Reference's object against its element's target types (() or Resource: any)."""
    known = frozenset(definitions.types())
    allowed = known if not targets or "Resource" in targets else frozenset(targets)

    def check(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        text = node.get("reference")
        if type(text) is str:
            if text[:1] == "#":
                _check_local(text, allowed, place, run)
            elif (match := _literal(text)) is not None and match[2] not in allowed and (match[2] in known or not match[1]):
                run.add("value", f"{quote(match[2])} is not a type that may stand here.", (place, "reference", -1))
        named = node.get("type")
        if type(named) is str and named not in allowed and named in known:
            run.add("value", f"{quote(named)} is not a type that may stand here.", (place, "type", -1))

    return check


def _check_local(text: str, allowed: frozenset[str], place: Place, run: ValidationRun) -> None:
    if text == "#":
        return
    found = run.contained().get(text[1:])
    if found is None:
        run.add("invariant", f"ref-1: nothing contained has the id {quote(text[1:])}.", (place, "reference", -1))
    elif found not in allowed:
        run.add("value", "What is contained there is not of a type that may stand here.", (place, "reference", -1))
