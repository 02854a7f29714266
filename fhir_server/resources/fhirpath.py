"""Compiles the FHIRPath subset of R4's invariants to closures over plain JSON values (http://hl7.org/fhirpath/N1/).

A collection is a list. A node is a JSON object, a primitive's value or, for a primitive without a value, its ``_x`` object.
Choice elements are addressed by their base name. Where FHIRPath leaves a comparison undecided (dates of different precision,
quantities of different units), the result is true, since an invariant must not reject what it cannot decide.
Expressions outside the subset raise ValueError when they are compiled.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fhir_server import fhir_dates
from fhir_server.resources import definitions
from fhir_server.resources.fhirpath_operators import BINARY, FUNCTIONS, truth

Items = list[Any]


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """The values of ``%resource``, ``%rootResource`` and ``$this``."""

    resource: Any
    root: Any
    this: Items


Expression = Callable[[Items, EvaluationContext], Items]
Operator = Callable[[Callable[[], Items], Callable[[], Items]], Items]

_token = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\]|\\.)*')|(?P<number>\d+(?:\.\d+)?)|(?P<name>[%$]?[A-Za-z_]\w*|`[^`]+`)"
    r"|(?P<sign><=|>=|!=|[|.,()\[\]=<>+*&-]))"
)
# from lowest to highest precedence
LEVELS: Final = (
    ("implies",),
    ("or", "xor"),
    ("and",),
    ("in", "contains"),
    ("=", "!="),
    ("<", "<=", ">", ">="),
    ("|",),
    ("is", "as"),
    ("+", "-", "&"),
    ("*", "mod"),
)
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}


@functools.cache
def predicate(expression: str) -> Callable[[Any, Any, Any], bool]:
    """(node, %resource, %rootResource) -> whether the invariant is met.  Raises ValueError for an expression outside the subset."""
    run = _Parser(expression).parse()

    def is_met(node: Any, resource: Any, root: Any) -> bool:
        here = [node]
        try:
            return truth(run(here, EvaluationContext(resource, root, here))) is True
        except TypeError:  # a value of the wrong JSON type, which another check reports
            return True

    return is_met


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = self._tokenize(text)
        self._at = 0

    @staticmethod
    def _tokenize(text: str) -> list[tuple[str, str]]:
        found, at = [], 0
        while at < len(text.rstrip()):
            match = _token.match(text, at)
            if match is None or match.lastgroup is None:
                raise ValueError(f"not FHIRPath: {text[at : at + 20]!r}")
            found.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        return [*found, ("end", "")]

    def _next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, sign: str) -> bool:
        if self._tokens[self._at][1] != sign or self._tokens[self._at][0] == "string":
            return False
        self._at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise ValueError(f"expected {sign!r}, found {self._tokens[self._at][1]!r}")

    def parse(self) -> Expression:
        found = self._level(0)
        if self._tokens[self._at][0] != "end":
            raise ValueError(f"unexpected {self._tokens[self._at][1]!r}")
        return found

    def _level(self, depth: int) -> Expression:
        if depth == len(LEVELS):
            return self._path()
        left = self._level(depth + 1)
        while self._tokens[self._at][1] in LEVELS[depth] and self._tokens[self._at][0] != "string":
            sign = self._next()[1]
            typed = sign in ("is", "as")
            left = _type_test(sign, left, self._type_name()) if typed else _combine(BINARY[sign], left, self._level(depth + 1))
        return left

    def _type_name(self) -> str:
        name = self._next()[1]
        return self._next()[1] if self._take(".") else name

    def _path(self) -> Expression:
        found = self._term()
        while True:
            if self._take("."):
                found = self._step(found)
            elif self._take("["):
                found = _item(found, int(self._next()[1]))
                self._expect("]")
            else:
                return found

    def _term(self) -> Expression:
        kind, text = self._next()
        if kind == "string":
            value = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text[1:-1])
            return lambda items, context: [value]
        if kind == "number":
            number = Decimal(text) if "." in text else int(text)
            return lambda items, context: [number]
        if text == "(":
            inner = self._level(0)
            self._expect(")")
            return inner
        if kind == "name":
            return self._name(text)
        raise ValueError(f"unexpected {text!r}")

    def _name(self, text: str) -> Expression:
        if text in ("true", "false"):
            return lambda items, context: [text == "true"]
        if text in VARIABLES:
            return VARIABLES[text]
        if text[0] in "%$":
            raise ValueError(f"unknown variable {text}")
        if self._tokens[self._at][1] == "(":
            return self._call(lambda items, context: items, text)
        if text in definitions.types():
            return lambda items, context: list(filter(_of_resource(text), items))
        return _Member(lambda items, context: items, text.strip("`"))

    def _step(self, before: Expression) -> Expression:
        kind, text = self._next()
        if kind != "name":
            raise ValueError(f"unexpected {text!r} after a dot")
        if self._tokens[self._at][1] == "(":
            return self._call(before, text)
        return _Member(before, text.strip("`"))

    def _call(self, before: Expression, name: str) -> Expression:
        self._expect("(")
        if name in ("is", "as", "ofType"):
            kind = self._type_name()
            self._expect(")")
            return _type_test("is" if name == "is" else "as", before, kind)
        arguments = []
        while not self._take(")"):
            arguments.append(self._level(0))
            self._take(",")
        function = FUNCTIONS.get(name)
        if function is None or (name == "resolve" and self._tokens[self._at][1] != "is"):  # no more than its type is known of a target
            raise ValueError(f"unknown function {name}()")
        return lambda items, context: function(before(items, context), arguments, context)


VARIABLES: Final[dict[str, Expression]] = {
    "$this": lambda items, context: context.this,
    "%resource": lambda items, context: [context.resource],
    "%rootResource": lambda items, context: [context.root],
    "%ucum": lambda items, context: ["http://unitsofmeasure.org"],
}


def _combine(operator: Operator, left: Expression, right: Expression) -> Expression:
    return lambda items, context: operator(lambda: left(items, context), lambda: right(items, context))


def _item(before: Expression, index: int) -> Expression:
    return lambda items, context: before(items, context)[index : index + 1]


@dataclass(frozen=True, slots=True)
class _Member:
    """The element ``name`` of the items of an expression."""

    before: Expression
    name: str

    def __call__(self, items: Items, context: EvaluationContext) -> Items:
        return [found for item in self.before(items, context) if isinstance(item, dict) for found in member(item, self.name)]

    def of_type(self, kind: str) -> Expression:
        """The element with this complex type, if it is a choice: JSON has the type in the name alone."""
        return _Member(self.before, self.name + kind)


def member(node: dict[str, Any], name: str) -> Items:
    """The items of element ``name`` of a JSON object: its values, or its ``_name`` if it has no value."""
    if name in node or "_" + name in node:
        return _values(node.get(name), node.get("_" + name))
    if name not in _choices():  # TestScript has responseCode beside response, which is no choice
        return []
    types = _choice_types()
    for key, value in node.items():
        plain = key.lstrip("_")
        if plain.startswith(name) and plain[len(name) :] in types:
            return _values(node.get(plain), value if key != plain else None)
    return []


def _values(value: Any, sibling: Any) -> Items:
    if value is None:
        value = sibling
    if not isinstance(value, list):
        return [] if value is None else [value]
    extra = sibling if isinstance(sibling, list) else []
    filled = [extra[i] if item is None and i < len(extra) else item for i, item in enumerate(value)]
    return [item for item in filled if item is not None]


@functools.cache
def _choices() -> frozenset[str]:
    """The base names of all choice elements of R4."""
    holders = (*definitions.types(), *definitions.datatypes())
    paths = (one.path for holder in holders for one in definitions.elements(holder) if one.path.endswith("[x]"))
    return frozenset(path.rpartition(".")[2][:-3] for path in paths)


@functools.cache
def _choice_types() -> frozenset[str]:
    names = [*definitions.datatypes(), *definitions.primitives()]
    return frozenset(name[0].upper() + name[1:] for name in names)


def _type_test(word: str, before: Expression, kind: str) -> Expression:
    if isinstance(before, _Member) and kind in definitions.datatypes():
        typed = before.of_type(kind)
        if word == "as":
            return typed
        return lambda items, context: [bool(found := before(items, context)) and found == typed(items, context)]
    test = KINDS.get(kind) or _of_resource(kind)

    def run(items: Items, context: EvaluationContext) -> Items:
        found = before(items, context)
        return [item for item in found if test(item)] if word == "as" else [bool(found) and all(map(test, found))]

    return run


def _of_resource(kind: str) -> Callable[[Any], bool]:
    return lambda item: isinstance(item, dict) and item.get("resourceType") == kind


def _text(item: Any) -> bool:
    return isinstance(item, str)


def _date(item: Any) -> bool:
    return isinstance(item, str) and fhir_dates.parse(item) is not None


KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "Boolean": lambda item: isinstance(item, bool),
    "decimal": lambda item: isinstance(item, Decimal | int) and not isinstance(item, bool),
    "canonical": _text,
    "DateTime": _date,
    "dateTime": _date,
    "uri": _text,
    "url": _text,
}
