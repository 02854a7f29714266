"""Compiles one ``name:modifier=value`` of a query string to the condition language.

A criterion that is not supported is rejected: it is never ignored or widened (http://hl7.org/fhir/R4/search.html#modifiers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fhir_server.errors import Problem
from fhir_server.resources import definitions
from fhir_server.resources.references import type_at_end
from fhir_server.search import chained, code_sets, composite_criteria, filter_expressions, last_updated, word_criteria, words
from fhir_server.search.chained import NotInTypeError, StepCount
from fhir_server.search.composites import Composite, composites
from fhir_server.search.escaping import split, unescape
from fhir_server.search.expression import parse
from fhir_server.search.filters import (
    EVERYTHING,
    NOTHING,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    Predicate,
    Present,
    QuantityIs,
    RefersTo,
    TokenIs,
)
from fhir_server.search.implied_systems import element_of, implied_systems
from fhir_server.search.index import Parameter, parameter, parameters
from fhir_server.search.owners import with_owners
from fhir_server.search.parameter_types import ValueContext
from fhir_server.search.parameter_types.quantity import in_all_units, require_few_quantities
from fhir_server.search.parameter_types.token import HAS_TEXT

# R4 parameters that narrow a search and are not supported: to ignore one would widen the search.
UNSUPPORTED_NARROWING: Final = frozenset({"_filter", "_query"})

# Modifiers that entries of their own answer, under the name ``parameter:modifier``.
OF_ENTRIES: Final = frozenset({"identifier", "of-type", "text"})

# Elements whose codes come with their system.
_CODED: Final = frozenset({"Coding", "CodeableConcept"})

FILTER: Final = "_filter"

TRUE: Final = TokenIs(None, "true")


class UnknownParameterError(Exception):
    """The type has no parameter of this name; the caller decides whether that is an error."""


def criterion(type: str, name: str, value: str, now: int, base: str) -> Filter:
    """The condition of a name-value pair.

    Raises :class:`UnknownParameterError` if R4 has no such parameter for the type, Problem ``invalid`` if the criterion is malformed
    or not supported.  The steps of chained parameters and of ``_has`` have no Visibility yet (:mod:`fhir_server.search.steps`).
    """
    if name == FILTER:
        leaf = lambda name, value: _criterion(type, name, value, now, base, is_of_filter=True)  # noqa: E731
        return filter_expressions.condition(value, leaf, lambda name: chained.kind_of(type, name))
    return _criterion(type, name, value, now, base)


def _criterion(type: str, name: str, value: str, now: int, base: str, *, is_of_filter: bool = False) -> Filter:
    if not chained.is_chained(name) and name != chained.LIST and not is_of_filter:
        return _plain(type, name, value, now, base)
    count = StepCount()

    def rest(type: str, name: str) -> Filter:
        if chained.is_chained(name):
            return chained.condition(type, name, rest, count)
        try:
            return _plain(type, name, value, now, base, is_of_filter=is_of_filter)
        except UnknownParameterError:
            raise NotInTypeError(f"{type} has no search parameter {name!r}.") from None

    try:
        return rest(type, name)
    except NotInTypeError as error:
        raise Problem("invalid", f"The search parameter {name!r} is not supported. {error}") from None


def _plain(type: str, name: str, value: str, now: int, base: str, *, is_of_filter: bool = False) -> Filter:
    code, _, modifier = name.partition(":")
    known = parameter(type, code)
    if code == chained.LIST and ":" in name:
        raise Problem("invalid", f"The search parameter {code!r} does not support the modifier {modifier!r}.")
    if code == chained.LIST:
        return _valued(name, value, lambda: chained.in_lists(type, value))
    if code in words.parameters(type):
        if ":" in name:
            raise Problem("invalid", f"The search parameter {code!r} does not support the modifier {modifier!r}.")
        return _valued(name, value, lambda: word_criteria.condition(code, value))
    if known is None:
        composite = composites(type).get(code)
        if composite is not None and ":" not in name:
            return _valued(name, value, lambda: _composite(type, composite, value, now, base))
        if composite is not None:
            raise Problem("invalid", f"The search parameter {code!r} does not support the modifier {modifier!r}.")
        if code in UNSUPPORTED_NARROWING or any(one.code == code for one in definitions.search_parameters(type)):
            raise Problem("invalid", f"The search parameter {code!r} is not supported.")
        raise UnknownParameterError(name)
    if ":" in name and not (_accepts_modifier(known, modifier) or (is_of_filter and modifier == "equal")):
        raise Problem("invalid", f"The search parameter {code!r} does not support the modifier {modifier!r}.")
    return _valued(name, value, lambda: _condition(known, modifier, value, now, base))


def _valued(name: str, value: str, compile: Callable[[], Filter]) -> Filter:
    try:
        return compile()
    except ValueError as error:
        raise Problem("invalid", f"The search parameter {name!r} cannot have the value {value!r}: {error}.") from None


def _composite(type: str, composite: Composite, value: str, now: int, base: str) -> Filter:
    context = ValueContext(None, (type,), base, now)  # the only pair with a reference relates documents
    texts = split(value, ",")
    require_few_quantities(composite.value, texts)
    return _any_of([composite_criteria.condition(type, composite, text, context) for text in texts])


def refers(type: str, param: str, targets: frozenset[str]) -> Filter:
    """The condition that a row of ``type`` refers to one of these ``Type/id`` or URLs by reference parameter ``param``."""
    return _condition_on(parameters(type)[param], RefersTo(targets))


def _accepts_modifier(parameter: Parameter, modifier: str) -> bool:
    if modifier == "missing":
        # Only the text of an entry says to which type it refers, so the presence of targets of one type cannot be queried.
        return parameter.indexed_as.limit is None
    if modifier in OF_ENTRIES and not _has_entries(parameter, modifier):
        return False
    if parameter.kind.entry == "token" and modifier in code_sets.MODIFIERS and not _has_codes(parameter):
        return False
    return modifier in parameter.kind.modifiers or (parameter.definition.kind == "reference" and modifier in parameter.targets)


def _has_entries(parameter: Parameter, modifier: str) -> bool:
    """Whether rows have the entries of this modifier.

    ``of-type``: of all Identifiers with a type; ``identifier``: of all References with one; ``text``: of whatever may have a text.
    """
    if parameter.datatypes:
        return not parameter.datatypes.isdisjoint({"of-type": {"Identifier"}, "identifier": {"Reference"}, "text": HAS_TEXT}[modifier])
    branches = parse(parameter.definition.expression)
    if parameter.indexed_as.limit is not None:
        branches = tuple(branch[:-1] for branch in branches)
    elements = [element_of(parameter.type, branch) for branch in branches]
    if modifier == "text":
        return not all(element is not None and HAS_TEXT.isdisjoint(one.code for one in element.types) for element in elements)
    wanted = "Identifier" if modifier == "of-type" else "Reference"
    return all(element is not None and wanted in {one.code for one in element.types} for element in elements)


def _has_codes(parameter: Parameter) -> bool:
    """Whether its values are codes of which a system is known: the entry has it, or the definition of the element."""
    if parameter.flag or parameter.definition.code == "_id":
        return False
    if parameter.datatypes:
        return parameter.datatypes <= _CODED
    for branch in parse(parameter.definition.expression):
        element = element_of(parameter.type, branch)
        types = {one.code for one in element.types} if element is not None else _CODED
        if not types & _CODED and not (types == {"code"} and element is not None and element.codes):
            return False
    return True


def _condition(parameter: Parameter, modifier: str, value: str, now: int, base: str) -> Filter:
    if modifier == "missing":
        return _missing(parameter, value)
    context = ValueContext(modifier or None, parameter.targets, base, now)
    texts = split(value, ",")
    require_few_quantities(parameter.kind, texts)
    parts = [_alternative(parameter, text, context) for text in texts]
    condition = with_owners(parameter.type, _any_of(parts))
    return Not(condition) if modifier in ("not", "not-in") else condition


def _any_of(parts: list[Filter]) -> Filter:
    """The condition that some part matches, with ids, and references by the same parameter, merged to one set."""
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


def _alternative(parameter: Parameter, text: str, context: ValueContext) -> Filter:
    if not text:
        raise ValueError("a value is empty")
    if parameter.definition.code == "_id":
        return IdIs(frozenset({unescape(text)}))
    if parameter.kind.entry == "token" and context.modifier in code_sets.MODIFIERS:
        implied = implied_systems(parameter.type, parameter.definition.expression)
        return code_sets.parse(parameter.indexed_as.params, str(context.modifier), text, implied, context.base)
    predicate = parameter.kind.parse_value(text, context)
    if isinstance(predicate, DateIs) and parameter.definition.code == last_updated.CODE:
        return last_updated.of_greatest(predicate)
    if context.modifier in OF_ENTRIES:
        params = parameter.indexed_as.params if parameter.indexed_as.limit is None else (parameter.definition.code,)
        conditions = tuple(Has(f"{param}:{context.modifier}", predicate) for param in params)
        return conditions[0] if len(conditions) == 1 else AnyOf(conditions)
    if isinstance(predicate, TokenIs) and predicate.system in implied_systems(parameter.type, parameter.definition.expression):
        predicate = TokenIs("", predicate.code)
    if parameter.flag:
        return _flag(parameter, predicate)
    if isinstance(predicate, QuantityIs):
        return _any_of([_condition_on(parameter, one) for one in in_all_units(predicate)])
    return _condition_on(parameter, predicate)


def _condition_on(parameter: Parameter, predicate: Predicate) -> Filter:
    indexed_as = parameter.indexed_as
    if isinstance(predicate, RefersTo) and indexed_as.limit:
        targets = frozenset(target for target in predicate.targets if type_at_end(target) == indexed_as.limit)
        if not targets:
            return NOTHING
        predicate = RefersTo(targets)
    conditions = tuple(Has(param, predicate) for param in indexed_as.params)
    return conditions[0] if len(conditions) == 1 else AnyOf(conditions)


def _flag(parameter: Parameter, predicate: Predicate) -> Filter:
    true = Has(parameter.indexed_as.params[0], TRUE)
    if not isinstance(predicate, TokenIs) or predicate.system or predicate.code not in ("true", "false"):
        raise ValueError("it must be true or false")
    return true if predicate.code == "true" else Not(true)


def _missing(parameter: Parameter, value: str) -> Filter:
    if value not in ("true", "false"):
        raise ValueError("it must be true or false")
    if parameter.flag or parameter.definition.code == "_id":
        return NOTHING if value == "true" else EVERYTHING
    conditions = tuple(Present(param, parameter.kind.entry) for param in parameter.indexed_as.params)
    present = conditions[0] if len(conditions) == 1 else AnyOf(conditions)
    return Not(present) if value == "true" else present
