"""Scopes at another system: which to ask for, and what those that were granted cover.

SMART App Launch 2.2, scopes: ``patient/Type.read`` (SMART 1) and ``patient/Type.rs?category=...`` (SMART 2), each for one type or for
all (``*``).  A system that does not know ``*`` is asked for the single types that it lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import parse_qsl

from fhir_server.linking import queries
from fhir_server.linking.queries import Query

_LAUNCH: Final = "launch/patient openid fhirUser offline_access"
ALL_V2: Final = f"{_LAUNCH} patient/*.rs"
ALL_V1: Final = f"{_LAUNCH} patient/*.read"
MAX_SCOPE: Final = 16_384  # characters of granted scopes; longer ones are not read
_NEEDED: Final = ("Patient", "Medication", *queries.TYPES)
_SCOPE: Final = re.compile(
    r"(?:patient|user)/(?P<type>\*|[A-Za-z]+)\.(?P<access>read|write|\*|c?r?u?d?s?)(?:\?(?P<condition>.+))?", re.ASCII
)
_V1: Final = ("read", "write", "*")
_CAPABILITY_V1, _CAPABILITY_V2 = "permission-v1", "permission-v2"


class Cover(Enum):
    """What the granted scopes cover of a search."""

    ALL = "all that the other system shows"
    PART = "only what meets conditions"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class _Scope:
    """A resource scope. ``text``: as it was written; ``condition``: the part after ``?``, "" for none."""

    text: str
    type: str
    access: str
    condition: str

    @property
    def is_v1(self) -> bool:
        return self.access in _V1

    @property
    def can_search(self) -> bool:
        return self.access in ("read", "*") or (not self.is_v1 and "s" in self.access)


def choose(document: Mapping[str, Any]) -> str:
    """Return the scopes to ask for at the system with this discovery document."""
    listed = _parse_all(_texts(document.get("scopes_supported")))
    capabilities = _texts(document.get("capabilities"))
    has_v2 = _CAPABILITY_V2 in capabilities or any(not scope.is_v1 for scope in listed)
    is_v1 = not has_v2 and (_CAPABILITY_V1 in capabilities or any(scope.is_v1 for scope in listed))
    whole = ALL_V1 if is_v1 else ALL_V2
    own = [each for each in listed if each.text.startswith("patient/") and each.is_v1 is is_v1 and each.access != "write"]
    if not own or any(scope.type == "*" for scope in own):
        return whole
    if not any(scope.type in queries.TYPES for scope in own):
        return whole  # what is listed need not be all that a system knows
    return " ".join([_LAUNCH, *filter(None, (_single(type, is_v1, own) for type in _NEEDED))])


def missing(scope: str) -> tuple[str, ...]:
    """Return what people will miss of a link that has this scope: ``("vaccinations", "messages")``."""
    return tuple(dict.fromkeys(query.what for query in queries.QUERIES if cover(scope, query) is Cover.NONE))


def cover(scope: str, query: Query) -> Cover:
    """Return what a granted scope covers of a search.  One without any resource scope says nothing: then all of it may be asked."""
    granted = _parse_all(scope.split())
    if not granted:
        return Cover.ALL
    usable = [each for each in granted if each.type in ("*", query.type) and each.can_search]
    if any(not each.condition or _is_filter(each.condition, query) for each in usable):
        return Cover.ALL
    return Cover.PART if usable else Cover.NONE


def _single(type: str, is_v1: bool, listed: list[_Scope]) -> str:
    own = [scope for scope in listed if scope.type == type]
    if any(not scope.condition for scope in own):
        return f"patient/{type}.{'read' if is_v1 else 'rs'}"
    return " ".join(dict.fromkeys(scope.text for scope in own))


def _is_filter(condition: str, query: Query) -> bool:
    """Whether a condition admits all that the search asks for: it is the filter of the search, with or without a system."""
    parameters = [(name, value.rpartition("|")[2]) for name, value in parse_qsl(condition)]
    return len(parameters) == 1 and parameters == list(query.filters)


def _parse_all(scopes: list[str]) -> list[_Scope]:
    found = [(text, _SCOPE.fullmatch(text)) for text in scopes]
    parsed = [_Scope(text, match["type"], match["access"], match["condition"] or "") for text, match in found if match]
    return [scope for scope in parsed if scope.access]


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
