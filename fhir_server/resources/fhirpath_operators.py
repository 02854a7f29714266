"""Operators and functions of the FHIRPath subset in :mod:`fhir_server.resources.fhirpath`.

An empty collection means "unknown" in the three-valued logic of http://hl7.org/fhirpath/N1/#boolean-logic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from fhir_server import fhir_dates
from fhir_server.fhir_dates import FhirDate
from fhir_server.resources.references import type_at_end

Items = list[Any]
Lazy = Callable[[], Items]
Function = Callable[[Items, list[Any], Any], Items]


def truth(items: Items) -> bool | None:
    """The boolean value of a collection: None (unknown) if it is empty, true for a single item that is not a boolean."""
    if not items:
        return None
    return items[0] if len(items) == 1 and isinstance(items[0], bool) else True


def _boolean(value: bool | None) -> Items:
    return [] if value is None else [value]


def _and(left: Lazy, right: Lazy) -> Items:
    first = truth(left())
    second = None if first is False else truth(right())
    return _boolean(False if first is False or second is False else None if first is None or second is None else True)


def _or(left: Lazy, right: Lazy) -> Items:
    first = truth(left())
    second = None if first is True else truth(right())
    return _boolean(True if first is True or second is True else None if first is None or second is None else False)


def _xor(left: Lazy, right: Lazy) -> Items:
    first, second = truth(left()), truth(right())
    return _boolean(None if first is None or second is None else first != second)


def _implies(left: Lazy, right: Lazy) -> Items:
    first = truth(left())
    return [True] if first is False else _or(lambda: _boolean(None if first is None else not first), right)


def _equal(left: Lazy, right: Lazy) -> Items:
    first, second = left(), right()
    return [first == second] if first and second else []


def _unequal(left: Lazy, right: Lazy) -> Items:
    return [not same for same in _equal(left, right)]


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Lazy, Lazy], Items]:
    def compare(left: Lazy, right: Lazy) -> Items:
        first, second = left(), right()
        if len(first) != 1 or len(second) != 1:
            return []
        a, b = comparable(first[0], second[0])
        return [True if a is None else test(a, b)]

    return compare


def comparable(a: Any, b: Any) -> tuple[Any, Any]:
    """Two values in a form that Python can order, or (None, None) if FHIRPath leaves the order undecided."""
    if isinstance(a, dict) and isinstance(b, dict):
        same = (a.get("system"), a.get("code"), a.get("unit")) == (b.get("system"), b.get("code"), b.get("unit"))
        a, b = (a.get("value"), b.get("value")) if same else (None, None)
    if isinstance(a, str) and isinstance(b, str):
        return _dates(a, b)
    numbers = isinstance(a, int | Decimal) and isinstance(b, int | Decimal)
    return (a, b) if numbers else (None, None)


def _dates(a: str, b: str) -> tuple[Any, Any]:
    """Two instants as (minutes, seconds) in UTC; other dates cut to their common precision, or undecided if equal then."""
    first, second = fhir_dates.parse(a), fhir_dates.parse(b)
    if first is None or second is None or not (_is_fhir(first) and _is_fhir(second)):
        return None, None
    if first.zone and second.zone:
        return _utc(first), _utc(second)
    precision = min(sum(part is not None for part in date[:3]) for date in (first, second))
    left, right = first[:precision], second[:precision]
    undecided = left == right and (first[precision] is not None or second[precision] is not None)
    return (None, None) if undecided else (left, right)


def _is_fhir(date: FhirDate) -> bool:
    """Whether a time, if there is one, has seconds and a zone, as FHIR requires."""
    return date.hour is None or (date.second is not None and date.zone is not None)


def _utc(date: FhirDate) -> tuple[int, Decimal]:
    minutes = _ordinal(date.year, date.month or 1, date.day or 1) * 1440 + (date.hour or 0) * 60 + (date.minute or 0)
    return minutes - date.offset(), Decimal(f"{date.second}.{date.fraction or 0}")


def _ordinal(year: int, month: int, day: int) -> int:
    """A day count that orders dates and is exact across the ends of months, as offsets of time zones need."""
    year, month = (year - 1, month + 12) if month <= 2 else (year, month)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day


def _union(left: Lazy, right: Lazy) -> Items:
    return distinct(left() + right())


def _in(left: Lazy, right: Lazy) -> Items:
    first = left()
    return [first[0] in right()] if first else []


def _plus(left: Lazy, right: Lazy) -> Items:
    first, second = left(), right()
    return [first[0] + second[0]] if first and second else []


def _on_numbers(operation: Callable[[Any, Any], Any]) -> Callable[[Lazy, Lazy], Items]:
    def run(left: Lazy, right: Lazy) -> Items:
        first, second = left(), right()
        numbers = [item for item in first[:1] + second[:1] if isinstance(item, int | Decimal) and not isinstance(item, bool)]
        return [operation(*numbers)] if len(numbers) == 2 else []

    return run


def _remainder(dividend: Any, divisor: Any) -> Any:
    return dividend % divisor if divisor else 0


def _concatenate(left: Lazy, right: Lazy) -> Items:
    return ["".join(str(item) for item in left()[:1] + right()[:1])]


BINARY: Final[dict[str, Callable[[Lazy, Lazy], Items]]] = {
    "and": _and,
    "or": _or,
    "xor": _xor,
    "implies": _implies,
    "=": _equal,
    "!=": _unequal,
    "<": _ordered(lambda a, b: a < b),
    "<=": _ordered(lambda a, b: a <= b),
    ">": _ordered(lambda a, b: a > b),
    ">=": _ordered(lambda a, b: a >= b),
    "|": _union,
    "in": _in,
    "contains": lambda left, right: _in(right, left),
    "+": _plus,
    "-": _on_numbers(lambda a, b: a - b),
    "&": _concatenate,
    "*": _on_numbers(lambda a, b: a * b),
    "mod": _on_numbers(_remainder),
}


def distinct(items: Items) -> Items:
    """The items in order, without duplicates."""
    found: Items = []
    seen = set()
    for item in items:
        key = repr(item)
        if key not in seen:
            seen.add(key)
            found.append(item)
    return found


def children(item: Any) -> Iterator[Any]:
    """The child nodes of a node; a primitive without a value is represented by its ``_x``."""
    if isinstance(item, dict):
        for key, value in item.items():
            if key == "resourceType" or (key[:1] == "_" and key[1:] in item):
                continue
            yield from value if isinstance(value, list) else (value,)


def descendants(item: Any) -> Iterator[Any]:
    """All nodes below a node."""
    for child in children(item):
        yield child
        yield from descendants(child)


def _where(items: Items, arguments: list[Any], context: Any) -> Items:
    return [item for item in items if truth(_each(item, arguments, context))]


def _each(item: Any, arguments: list[Any], context: Any) -> Items:
    here = [item]
    found: Items = arguments[0](here, replace(context, this=here))
    return found


def _exists(items: Items, arguments: list[Any], context: Any) -> Items:
    return [bool(_where(items, arguments, context) if arguments else items)]


def _iif(items: Items, arguments: list[Any], context: Any) -> Items:
    chosen = arguments[1] if truth(arguments[0](items, context)) else arguments[2] if len(arguments) > 2 else None
    return chosen(items, context) if chosen else []


def _on_text(operation: Callable[[str, list[Any]], Any]) -> Function:
    def run(items: Items, arguments: list[Any], context: Any) -> Items:
        if not items or not isinstance(items[0], str):
            return []
        values = [argument(context.this, context) for argument in arguments]
        return [operation(items[0], [value[0] for value in values])] if all(values) else []

    return run


def _text_predicate(operation: Callable[[str, str], bool]) -> Function:
    """A predicate on a text.  Without a text it is false, not unknown: bdl-8 uses ``fullUrl.contains(...).not()`` without a fullUrl."""
    ask = _on_text(lambda text, given: operation(text, given[0]))
    return lambda items, arguments, context: ask(items, arguments, context) or [False]


def _to_integer(items: Items, arguments: list[Any], context: Any) -> Items:
    return [int(items[0])] if items and re.fullmatch(r"[+-]?\d+", str(items[0])) else []


def _resolve(items: Items, arguments: list[Any], context: Any) -> Items:
    """Of each target no more than its type, as far as the reference says it."""
    texts = [item.get("reference") if isinstance(item, dict) else item for item in items]
    types = [type_at_end(text) for text in texts if isinstance(text, str)]
    return [{"resourceType": type} for type in types if type]


def _call(items: Items, arguments: list[Any], context: Any) -> Items:
    found: Items = arguments[0](context.this, context)
    return found


FUNCTIONS: Final[dict[str, Function]] = {
    "all": lambda items, arguments, context: [all(truth(_each(item, arguments, context)) for item in items)],
    "children": lambda items, arguments, context: [child for item in items for child in children(item)],
    "combine": lambda items, arguments, context: items + _call(items, arguments, context),
    "contains": _text_predicate(lambda text, part: part in text),
    "count": lambda items, arguments, context: [len(items)],
    "descendants": lambda items, arguments, context: [child for item in items for child in descendants(item)],
    "empty": lambda items, arguments, context: [not items],
    "exists": _exists,
    "first": lambda items, arguments, context: items[:1],
    "hasValue": lambda items, arguments, context: [len(items) == 1 and not isinstance(items[0], dict)],
    "iif": _iif,
    "intersect": lambda items, arguments, context: [i for i in distinct(items) if i in _call(items, arguments, context)],
    "isDistinct": lambda items, arguments, context: [len(distinct(items)) == len(items)],
    "length": _on_text(lambda text, given: len(text)),
    "matches": _text_predicate(lambda text, pattern: re.search(pattern, text) is not None),
    "not": lambda items, arguments, context: _boolean(None if truth(items) is None else not truth(items)),
    "replaceMatches": _on_text(lambda text, given: re.sub(given[0], given[1], text)),
    "select": lambda items, arguments, context: [found for item in items for found in _each(item, arguments, context)],
    "startsWith": _text_predicate(lambda text, start: text.startswith(start)),
    "resolve": _resolve,
    "substring": _on_text(lambda text, given: text[given[0] : given[0] + given[1] if given[1:] else None]),
    "tail": lambda items, arguments, context: items[1:],
    "toInteger": _to_integer,
    "toString": lambda items, arguments, context: [str(item) for item in items[:1]],
    "trace": lambda items, arguments, context: items,
    "where": _where,
}
