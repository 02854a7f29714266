"""Compiles ``_filter`` to the condition language (http://hl7.org/fhir/R4/search_filter.html).

``name sw "pet" and (birthdate ge 1990 or not (gender eq male))``. As R4 says, ``and`` and ``or`` are taken from left to right, without
precedence. Each comparison becomes a criterion of its parameter, which may be chained. Conditions in brackets are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from fhir_server.errors import Problem
from fhir_server.search.filters import AllOf, AnyOf, Filter, Not

MAX_COMPARISONS: Final = 30
_MAX_DEPTH: Final = 20
_TOKEN: Final = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<sign>[()])|(?P<word>[^\s()"]+))')
_PREFIXED: Final = frozenset({"date", "number", "quantity"})
_ORDERS: Final = ("gt", "lt", "ge", "le", "ap", "sa", "eb")
# By kind of parameter: the modifier of each operator's criterion.  ``ne`` is the negation of ``eq``.
_MODIFIERS: Final = {
    "string": {"eq": "equal", "co": "contains", "sw": ""},
    "token": {"eq": "", "in": "in", "ni": "not-in", "sb": "above", "ss": "below"},
    "reference": {"eq": "", "re": ""},
    "uri": {"eq": "", "sb": "above", "ss": "below"},
    **{kind: dict.fromkeys(("eq", *_ORDERS), "") for kind in _PREFIXED},
}
_ESCAPED: Final = re.compile(r"[\\,|$]")

Criterion = Callable[[str, str], Filter]
"""The condition of a search parameter's name, with modifier, and a value."""
KindOf = Callable[[str], str]
"""The kind of the search parameter to which a name, perhaps chained, leads."""


def condition(text: str, criterion: Criterion, kind_of: KindOf) -> Filter:
    """The condition of an expression.  Raises Problem ``invalid``."""
    reader = _Reader(text, criterion, kind_of)
    found = reader.expression(0)
    reader.require_end()
    return found


class _Reader:
    def __init__(self, text: str, criterion: Criterion, kind_of: KindOf) -> None:
        self._criterion = criterion
        self._kind_of = kind_of
        self._tokens: list[tuple[str, str]] = []
        self._comparisons = 0
        position, end = 0, len(text.rstrip())
        while position < end:
            token = _TOKEN.match(text, position)
            if token is None:
                raise _malformed(f"it cannot be read from {text[position : position + 20]!r} on")
            self._tokens.append((token.lastgroup or "", token[token.lastgroup or 0]))
            position = token.end()

    def expression(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise _malformed(f"it has more than {_MAX_DEPTH} levels")
        found = self._term(depth)
        while (word := self._peek("word")) in ("and", "or"):
            self._tokens.pop(0)
            other = self._term(depth)
            found = AllOf((found, other)) if word == "and" else AnyOf((found, other))
        return found

    def require_end(self) -> None:
        if self._tokens:
            raise _malformed(f"{self._tokens[0][1]!r} is not expected")

    def _peek(self, kind: str) -> str | None:
        return self._tokens[0][1] if self._tokens and self._tokens[0][0] == kind else None

    def _take(self, *kinds: str) -> str:
        if not self._tokens or self._tokens[0][0] not in kinds:
            raise _malformed("it ends too early" if not self._tokens else f"{self._tokens[0][1]!r} is not expected")
        return self._tokens.pop(0)[1]

    def _term(self, depth: int) -> Filter:
        is_negated = self._peek("word") == "not" and len(self._tokens) > 1 and self._tokens[1] == ("sign", "(")
        if is_negated:
            self._tokens.pop(0)
        if self._peek("sign") == "(":
            self._tokens.pop(0)
            found = self.expression(depth + 1)
            if self._take("sign") != ")":
                raise _malformed("a parenthesis does not end")
            return Not(found) if is_negated else found
        return self._comparison()

    def _comparison(self) -> Filter:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise _malformed(f"it has more than {MAX_COMPARISONS} comparisons")
        name, operator = self._take("word"), self._take("word")
        if ":" in name or "[" in name:
            raise _malformed(f"{name!r} must be the name of a search parameter, or a chain of names")
        is_text = self._peek("string") is not None
        value = self._take("string", "word")
        if is_text:
            value = _unquoted(value)
        if operator == "pr":
            if value not in ("true", "false"):
                raise _malformed("after pr comes true or false")
            return self._criterion(f"{name}:missing", "false" if value == "true" else "true")
        kind = self._kind_of(name)
        modifier = _MODIFIERS.get(kind, {}).get("eq" if operator == "ne" else operator)
        if modifier is None:
            raise _malformed(f"{operator[:20]!r} is not supported for {name[:80]!r}")
        if is_text or kind == "string":
            value = _ESCAPED.sub(r"\\\g<0>", value)
        if kind in _PREFIXED and operator in _ORDERS:
            value = operator + value
        found = self._criterion(f"{name}:{modifier}" if modifier else name, value)
        return Not(found) if operator == "ne" else found


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        raise _malformed(f"{text[:40]} is not a string of JSON") from None


def _malformed(text: str) -> Problem:
    return Problem("invalid", f"The search parameter '_filter' cannot have this value: {text}.")
