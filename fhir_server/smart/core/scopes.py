"""SMART scopes: parsing both syntaxes, narrowing a request to what its client may ask, and asking what is covered.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html.  A scope that is not exactly in one
of the two syntaxes is dropped, never guessed at, so no spelling widens anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

NAMED: Final = ("openid", "fhirUser", "launch", "launch/patient", "launch/encounter", "offline_access", "online_access")
LETTERS: Final = "cruds"
MOST: Final = 200  # scopes in one request
_V1: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_SCOPE: Final = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]{1,63})\.(read|write|\*|c?r?u?d?s?)(?:\?([!#-\[\]-~]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scope:
    """One resource scope: ``letters`` in the order of "cruds", ``query`` the search pairs that a row must meet (all of them).

    ``text`` is the scope as asked for and as granted.
    """

    level: str
    type: str
    interactions: str
    query: tuple[tuple[str, str], ...] = ()
    text: str = field(default="", compare=False)


def parse(text: str) -> Scope | None:
    """The resource scope that this text is, or None."""
    match = _SCOPE.fullmatch(text)
    if match is None:
        return None
    level, type, access, condition = match.groups()
    letters = _V1.get(access, access)
    pairs = _pairs(condition)
    if not letters or pairs is None or (pairs and access in _V1):
        return None
    return Scope(level, type, letters, pairs, text)


def _pairs(condition: str | None) -> tuple[tuple[str, str], ...] | None:
    if condition is None:
        return ()
    parts = [part.partition("=") for part in condition.split("&")]
    try:
        pairs = tuple((unquote(name, errors="strict"), unquote(value, errors="strict")) for name, _, value in parts)
    except UnicodeDecodeError:
        return None
    # A person is asked about it, so all of it can be seen and none of it turns the text around it.
    return pairs if all(text and text.isprintable() for pair in pairs for text in pair) else None


def resource_scopes(text: str) -> tuple[Scope, ...]:
    """The resource scopes of a space-separated list, leaving out everything else."""
    return tuple(scope for part in text.split() if (scope := parse(part)))


def covers(scopes: Iterable[Scope], level: str | None, type: str, letter: str) -> tuple[Scope, ...]:
    """Those scopes (of ``level``; None: of any) that allow interaction ``letter`` (c, r, u, d or s) on ``type``."""
    return tuple(s for s in scopes if level in (None, s.level) and s.type in ("*", type) and letter in s.interactions)


def narrowed(requested: str, allowed: str, levels: frozenset[str]) -> tuple[str, ...]:
    """What of the scopes ``requested`` a client ``allowed`` that much gets, each at most once, in the order asked."""
    asked = [text for text in requested.split(" ") if text]  # RFC 6749 3.3: a space, and no other sign for one
    if len(asked) > MOST:
        return ()
    names = set(NAMED) & set(allowed.split())
    permits = [scope for scope in resource_scopes(allowed) if scope.level in levels]
    given: dict[str, None] = {}
    for text in asked:
        scope = parse(text)
        given.update(dict.fromkeys([text] if text in names else _meets(scope, permits) if scope else ()))
    return tuple(given)


def _meets(scope: Scope, permits: list[Scope]) -> list[str]:
    if any(_contains(permit, scope) for permit in permits):
        return [scope.text]
    return [text for permit in permits if (text := _meet(scope, permit))]


def _contains(permit: Scope, scope: Scope) -> bool:
    return (
        permit.level == scope.level
        and permit.type in ("*", scope.type)
        and set(scope.interactions) <= set(permit.interactions)
        and set(permit.query) <= set(scope.query)
    )


def _meet(scope: Scope, permit: Scope) -> str | None:
    letters = "".join(letter for letter in scope.interactions if letter in permit.interactions)
    same_type = "*" in (scope.type, permit.type) or scope.type == permit.type
    if scope.level != permit.level or not letters or not same_type:
        return None
    type = permit.type if scope.type == "*" else scope.type
    conditions = [text.partition("?")[2] for text in (scope.text, permit.text)]
    condition = "&".join(filter(None, conditions))
    return f"{scope.level}/{type}.{letters}" + (f"?{condition}" if condition else "")
