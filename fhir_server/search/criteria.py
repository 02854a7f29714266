"""One ``name:modifier=value`` of a query string, compiled to the condition language.

What cannot be answered as asked is refused, never dropped or widened (http://hl7.org/fhir/R4/search.html#modifiers).
"""

from __future__ import annotations

from typing import Final

from fhir_server.errors import Problem
from fhir_server.resources import definitions
from fhir_server.resources.references import type_at_end
from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import EVERYTHING, NOTHING, AnyOf, Filter, Has, IdIs, Not, Predicate, Present, RefersTo, TokenIs
from fhir_server.search.implied_systems import implied_systems
from fhir_server.search.index import Parameter, parameters
from fhir_server.search.parameter_types import ValueContext

# Parameters of R4 that narrow a search and that are not served: to ignore one would answer a wider question.
NARROWING: Final = frozenset({"_text", "_content", "_filter", "_list", "_query"})

TRUE: Final = TokenIs(None, "true")


class UnknownParameterError(Exception):
    """The type has no parameter of this name; whether that is an error is for the caller to say."""


def criterion(type: str, name: str, value: str, now: int, base: str) -> Filter:
    """The condition that this pair asks for.

    Raises :class:`UnknownParameterError` for a name R4 does not give this type, Problem ``invalid`` for what is known and not
    supported, or malformed.
    """
    code, _, modifier = name.partition(":")
    if "." in name or code == "_has":
        raise Problem("invalid", f"Chained search is not supported: {name!r}.")
    parameter = parameters(type).get(code)
    if parameter is None:
        if code in NARROWING or any(known.code == code for known in definitions.search_parameters(type)):
            raise Problem("invalid", f"The search parameter {code!r} is not supported.")
        raise UnknownParameterError(name)
    if ":" in name and not _accepts_modifier(parameter, modifier):
        raise Problem("invalid", f"The search parameter {code!r} does not support the modifier {modifier!r}.")
    try:
        return _condition(parameter, modifier, value, now, base)
    except ValueError as error:
        raise Problem("invalid", f"The search parameter {name!r} cannot have the value {value!r}: {error}.") from None


def refers(type: str, param: str, targets: frozenset[str]) -> Filter:
    """Rows of ``type`` that refer, by reference parameter ``param``, to one of these ``Type/id`` or URLs."""
    return _condition_on(parameters(type)[param], RefersTo(targets))


def _accepts_modifier(parameter: Parameter, modifier: str) -> bool:
    if modifier == "missing":
        # Entries cannot be told to be of one type but by their text, so presence within a limit is not asked.
        return parameter.indexed_as.limit is None
    return modifier in parameter.kind.modifiers or (parameter.definition.kind == "reference" and modifier in parameter.targets)


def _condition(parameter: Parameter, modifier: str, value: str, now: int, base: str) -> Filter:
    if modifier == "missing":
        return _missing(parameter, value)
    asked = ValueContext(modifier or None, parameter.targets, base, now)
    parts = [_alternative(parameter, text, asked) for text in split(value, ",")]
    found = _either(parts)
    return Not(found) if modifier == "not" else found


def _either(parts: list[Filter]) -> Filter:
    """Any of the parts; ids, and references by one parameter, as one set."""
    parts = [part for part in parts if part != NOTHING] or [NOTHING]
    if len(parts) == 1:
        return parts[0]
    ids = [part.ids for part in parts if isinstance(part, IdIs)]
    if len(ids) == len(parts):
        return IdIs(frozenset().union(*ids))
    named = [(part.param, part.predicate.targets) for part in parts if isinstance(part, Has) and isinstance(part.predicate, RefersTo)]
    if len(named) == len(parts) and len({param for param, _ in named}) == 1:
        return Has(named[0][0], RefersTo(frozenset().union(*(targets for _, targets in named))))
    return AnyOf(tuple(parts))


def _alternative(parameter: Parameter, text: str, asked: ValueContext) -> Filter:
    if not text:
        raise ValueError("a value is empty")
    if parameter.definition.code == "_id":
        return IdIs(frozenset({unescape(text)}))
    test = parameter.kind.parse_value(text, asked)
    if isinstance(test, TokenIs) and test.system in implied_systems(parameter.type, parameter.definition.expression):
        test = TokenIs("", test.code)
    if parameter.flag:
        return _flag(parameter, test)
    return _condition_on(parameter, test)


def _condition_on(parameter: Parameter, test: Predicate) -> Filter:
    stands = parameter.indexed_as
    if isinstance(test, RefersTo) and stands.limit:
        targets = frozenset(target for target in test.targets if type_at_end(target) == stands.limit)
        if not targets:
            return NOTHING
        test = RefersTo(targets)
    found = tuple(Has(param, test) for param in stands.params)
    return found[0] if len(found) == 1 else AnyOf(found)


def _flag(parameter: Parameter, test: Predicate) -> Filter:
    true = Has(parameter.indexed_as.params[0], TRUE)
    if not isinstance(test, TokenIs) or test.system or test.code not in ("true", "false"):
        raise ValueError("it must be true or false")
    return true if test.code == "true" else Not(true)


def _missing(parameter: Parameter, value: str) -> Filter:
    if value not in ("true", "false"):
        raise ValueError("it must be true or false")
    if parameter.flag or parameter.definition.code == "_id":
        return NOTHING if value == "true" else EVERYTHING
    found = tuple(Present(param) for param in parameter.indexed_as.params)
    present = found[0] if len(found) == 1 else AnyOf(found)
    return Not(present) if value == "true" else present
