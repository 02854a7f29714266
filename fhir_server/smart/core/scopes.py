"""Parses SMART scopes in both syntaxes, limits a request to what its client may have, and finds the scopes for an interaction.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html.  A scope that matches neither syntax exactly
is dropped, so that no spelling grants more than was registered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote

ScopeInteraction = Literal["c", "r", "u", "d", "s"]
"""Create, read, update, delete, search: the letters of a SMART v2 scope."""
INTERACTIONS: Final[tuple[ScopeInteraction, ...]] = ("c", "r", "u", "d", "s")
NAMED_SCOPES: Final = ("openid", "profile", "fhirUser", "launch", "launch/patient", "launch/encounter", "offline_access", "online_access")
ADMINISTRATION: Final = "system/scim"
"""The scope for administering accounts (SCIM).  No FHIR data: a client that may have it may have no other."""
MAX_SCOPES: Final = 200
_V1: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_SCOPE: Final = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]{1,63})\.(read|write|\*|c?r?u?d?s?)(?:\?([!#-\[\]-~]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scope:
    """One resource scope.

    ``level``         ``patient``, ``user`` or ``system``
    ``type``          a resource type, or ``*``
    ``interactions``  one or more :data:`ScopeInteraction`, in the order of "cruds"
    ``query``         search parameters (name, value) that a resource must match, all of them
    ``text``          the scope as requested and granted
    """

    level: str
    type: str
    interactions: str
    query: tuple[tuple[str, str], ...] = ()
    text: str = field(default="", compare=False)


def parse(text: str) -> Scope | None:
    """The resource scope with this text, or None if the text is not a resource scope."""
    match = _SCOPE.fullmatch(text)
    if match is None:
        return None
    level, type, access, condition = match.groups()
    interactions = _V1.get(access, access)
    query = _parse_query(condition)
    if not interactions or query is None or (query and access in _V1):
        return None
    return Scope(level, type, interactions, query, text)


def _parse_query(condition: str | None) -> tuple[tuple[str, str], ...] | None:
    if condition is None:
        return ()
    parts = [part.partition("=") for part in condition.split("&")]
    try:
        query = tuple((unquote(name, errors="strict"), unquote(value, errors="strict")) for name, _, value in parts)
    except UnicodeDecodeError:
        return None
    # The consent page displays the condition, so every character must be visible and none may change the text direction.
    return query if all(text and text.isprintable() for pair in query for text in pair) else None


def resource_scopes(text: str) -> tuple[Scope, ...]:
    """The resource scopes in a space-separated list; all other entries are left out."""
    return tuple(scope for part in text.split() if (scope := parse(part)))


def covering_scopes(scopes: Iterable[Scope], level: str | None, type: str, interaction: ScopeInteraction) -> tuple[Scope, ...]:
    """The scopes of ``level`` (None: of any level) that allow ``interaction`` on ``type``."""
    return tuple(s for s in scopes if level in (None, s.level) and s.type in ("*", type) and interaction in s.interactions)


def narrow_scopes(requested: str, allowed: str, levels: frozenset[str]) -> tuple[str, ...]:
    """The part of the scopes ``requested`` that ``allowed`` permits at these levels, without repetition, in the order requested.

    A list of more than :data:`MOST` scopes yields none.
    """
    texts = [text for text in requested.split(" ") if text]  # RFC 6749 3.3: only a space separates scopes
    if len(texts) > MAX_SCOPES:
        return ()
    names = {*NAMED_SCOPES, *([ADMINISTRATION] if "system" in levels else [])} & set(allowed.split())
    permits = [scope for scope in resource_scopes(allowed) if scope.level in levels]
    granted: dict[str, None] = {}
    for text in texts:
        scope = parse(text)
        granted.update(dict.fromkeys([text] if text in names else _intersections(scope, permits) if scope else ()))
    return tuple(granted)


def _intersections(scope: Scope, permits: list[Scope]) -> list[str]:
    if any(_contains(permit, scope) for permit in permits):
        return [scope.text]
    return [text for permit in permits if (text := _intersection(scope, permit))]


def _contains(permit: Scope, scope: Scope) -> bool:
    return (
        permit.level == scope.level
        and permit.type in ("*", scope.type)
        and set(scope.interactions) <= set(permit.interactions)
        and set(permit.query) <= set(scope.query)
    )


def _intersection(scope: Scope, permit: Scope) -> str | None:
    interactions = "".join(each for each in scope.interactions if each in permit.interactions)
    same_type = "*" in (scope.type, permit.type) or scope.type == permit.type
    if scope.level != permit.level or not interactions or not same_type:
        return None
    type = permit.type if scope.type == "*" else scope.type
    conditions = [text.partition("?")[2] for text in (scope.text, permit.text)]
    condition = "&".join(filter(None, conditions))
    return f"{scope.level}/{type}.{interactions}" + (f"?{condition}" if condition else "")
