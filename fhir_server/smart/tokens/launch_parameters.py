"""What a launch may hand to an app beyond patient and encounter, checked before it is handed over.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#fhircontext-exp
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fhir_server.resources import catalog
from fhir_server.resources.references import ID

_KEYS: Final = frozenset({"reference", "canonical", "identifier", "type", "role"})


def check(parameters: Mapping[str, Any]) -> None:
    """Raises ValueError, worded for whoever makes the launch, for launch parameters that an app could not rely on."""
    for name, value in parameters.items():
        sound = _CHECKS.get(name)
        if sound is None:
            raise ValueError(f"{name!r} is not a launch parameter.")
        if not sound(value):
            raise ValueError(f"The launch parameter {name!r} is not of the form that SMART App Launch 2.2 gives it.")


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _items(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and _item(item) for item in value)


def _item(item: dict[str, Any]) -> bool:
    """One thing in context: named in at least one way, in a role of its own where it is a Patient or an Encounter."""
    role, type = item.get("role"), item.get("type")
    given = [name for name in _NAMES if name in item]
    kind = str(item["reference"]).partition("/")[0] if "reference" in item else type
    return (
        bool(given)
        and item.keys() <= _KEYS
        and all(_NAMES[name](item[name]) for name in given)
        and (type is None or type in catalog())
        and ("role" not in item or _role(role))
        and not (kind in ("Patient", "Encounter") and role in (None, "launch"))
    )


def _reference(value: object) -> bool:
    type, _, id = value.partition("/") if isinstance(value, str) else ("", "", "")
    return type in catalog() and ID.fullmatch(id) is not None


def _canonical(value: object) -> bool:
    parts = value.partition("|")[0].split("/") if isinstance(value, str) else []
    return len(parts) > 4 and parts[0] in ("http:", "https:") and _reference("/".join(parts[-2:]))


def _role(value: object) -> bool:
    """ "launch", or an absolute URI for any other role."""
    return value == "launch" or (isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", value) is not None)


def _identifier(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


_NAMES: Final[dict[str, Callable[[object], bool]]] = {"reference": _reference, "canonical": _canonical, "identifier": _identifier}
_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "fhirContext": _items,
    "need_patient_banner": lambda value: isinstance(value, bool),
    "intent": _text,
    "tenant": _text,
    "smart_style_url": lambda value: _text(value) and re.match(r"https?://", value) is not None,
}
