"""Conditions on codes of a value set, and on codes above or below another (http://hl7.org/fhir/R4/search.html#token).

Which codes these are depends on what the caller sees: a ValueSet may be a stored resource.  A condition comes from the parser without
the codes, and the View puts them in before a store is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from typing import Final

from fhir_server.errors import Issue, Problem
from fhir_server.resources.references import ID
from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, HasCodeOf, Not, ReferredBy, RefersToMatch, TokenIs
from fhir_server.search.limits import MAX_VALUES

MODIFIERS: Final = frozenset({"in", "not-in", "above", "below"})

CodesOf = Callable[[HasCodeOf], Awaitable[Collection[tuple[str, str]]]]
"""The (system, code) pairs that a condition is about."""


def parse(params: tuple[str, ...], modifier: str, text: str, implied: frozenset[str], base: str) -> HasCodeOf:
    """The condition of one value, still escaped.  Raises ValueError that says what is wrong."""
    if modifier in ("in", "not-in"):
        name = unescape(text)
        name = name.removeprefix(f"{base}/") if base and name.startswith(f"{base}/ValueSet/") else name
        type, _, id = name.partition("/")
        if not (type == "ValueSet" and ID.fullmatch(id)) and ":" not in name:
            raise ValueError(f"with :{modifier} it must be the canonical URL of a value set, or ValueSet/id")
        return HasCodeOf(params, "in", name, implied=implied)
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"with :{modifier} it is written system|code")
    return HasCodeOf(params, "above" if modifier == "above" else "below", parts[0], parts[1], implied)


def sets(where: Filter) -> Iterator[HasCodeOf]:
    """All such conditions in a condition, also those within steps."""
    match where:
        case HasCodeOf():
            yield where
        case RefersToMatch() | ReferredBy():
            yield from sets(where.where)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                if type(part) is not Has:  # a condition may have a thousand codes
                    yield from sets(part)
        case Not(part):
            yield from sets(part)


def require_none(where: Filter) -> None:
    """Require a condition without them, where no caller could say which codes they are.  Raises Problem ``invalid``."""
    if any(sets(where)):
        raise Problem("invalid", "The modifiers :in, :not-in, :above and :below are not supported here.")


async def with_codes(where: Filter, codes_of: CodesOf) -> Filter:
    """The condition with the codes put in.

    Raises what ``codes_of`` raises, and Problem ``invalid`` for more codes than a search may have values.
    """
    questions = list(dict.fromkeys(sets(where)))
    if not questions:
        return where
    codes = {}
    for question in questions:
        codes[question] = _tokens(question, await codes_of(question))
        if sum(len(found) for found in codes.values()) > MAX_VALUES:
            text = f"A search may have at most {MAX_VALUES} values, and the value sets and hierarchies in this one have more codes."
            raise Problem("invalid", text, (Issue("too-costly", text),))
    return _filled(where, codes)


def _tokens(question: HasCodeOf, codes: Collection[tuple[str, str]]) -> list[TokenIs]:
    return list(dict.fromkeys(TokenIs("" if system in question.implied else system, code) for system, code in codes))


def _filled(where: Filter, codes: dict[HasCodeOf, list[TokenIs]]) -> Filter:
    match where:
        case HasCodeOf():
            return AnyOf(tuple(Has(param, token) for param in where.params for token in codes[where]))
        case RefersToMatch() | ReferredBy():
            return replace(where, where=_filled(where.where, codes))
        case AllOf(parts):
            return AllOf(tuple(_filled(part, codes) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(_filled(part, codes) for part in parts))
        case Not(part):
            return Not(_filled(part, codes))
    return where
