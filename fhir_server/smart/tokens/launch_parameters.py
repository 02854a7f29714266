"""Launch parameters of SMART App Launch: checks those of an EHR launch, and builds those of a token response.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#fhircontext-exp
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fhir_server.resources import catalog
from fhir_server.resources.references import ID
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import style

_MEMBERS: Final = frozenset({"reference", "canonical", "identifier", "type", "role"})


def build(smart: SmartContext, token_grant: TokenGrant) -> dict[str, Any]:
    """The launch parameters of a token or introspection response.

    A grant by a person includes this server's ``smart_style_url``, unless the launch set one.
    """
    default = {"smart_style_url": f"{smart.origin}{style.PATH}"} if token_grant.username else {}
    return default | token_grant.context()


def check(parameters: Mapping[str, Any]) -> None:
    """Check the parameters of an EHR launch, other than patient and encounter.

    Raises ValueError, with a message for the code that creates the launch, for an unknown name or a malformed value.
    """
    for name, value in parameters.items():
        is_valid = _CHECKS.get(name)
        if is_valid is None:
            raise ValueError(f"{name!r} is not a launch parameter.")
        if not is_valid(value):
            raise ValueError(f"The launch parameter {name!r} does not have the form that SMART App Launch 2.2 requires.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_fhir_context(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and _is_context_item(item) for item in value)


def _is_context_item(item: dict[str, Any]) -> bool:
    """Whether the item has at least one way to identify a resource, and a Patient or Encounter has a role other than launch."""
    role, type = item.get("role"), item.get("type")
    identified_by = [name for name in _IDENTIFYING if name in item]
    resource_type = str(item["reference"]).partition("/")[0] if "reference" in item else type
    return (
        bool(identified_by)
        and item.keys() <= _MEMBERS
        and all(_IDENTIFYING[name](item[name]) for name in identified_by)
        and (type is None or type in catalog())
        and ("role" not in item or _is_role(role))
        and not (resource_type in ("Patient", "Encounter") and role in (None, "launch"))
    )


def _is_reference(value: object) -> bool:
    type, _, id = value.partition("/") if isinstance(value, str) else ("", "", "")
    return type in catalog() and ID.fullmatch(id) is not None


def _is_canonical(value: object) -> bool:
    parts = value.partition("|")[0].split("/") if isinstance(value, str) else []
    return len(parts) > 4 and parts[0] in ("http:", "https:") and _is_reference("/".join(parts[-2:]))


def _is_role(value: object) -> bool:
    """Whether the value is "launch" or an absolute URI."""
    return value == "launch" or (isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", value) is not None)


def _is_identifier(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


_IDENTIFYING: Final[dict[str, Callable[[object], bool]]] = {
    "reference": _is_reference,
    "canonical": _is_canonical,
    "identifier": _is_identifier,
}
_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "fhirContext": _is_fhir_context,
    "need_patient_banner": lambda value: isinstance(value, bool),
    "intent": _is_text,
    "tenant": _is_text,
    "smart_style_url": lambda value: _is_text(value) and re.match(r"https?://", value) is not None,
}
