"""Parses chained parameters, ``_has`` and ``_list`` (http://hl7.org/fhir/R4/search.html#chaining, http://hl7.org/fhir/R4/search.html#has).

``subject:Patient.name``, ``subject.organization.name``, ``_has:Observation:patient:code``, each with steps of either kind inside.
References are followed to resources of this server, and canonical URLs to those that have the URL. A step may begin at AuditEvents; none
leads to them, because most are lines of the audit log, which is read line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fhir_server.errors import Problem
from fhir_server.resources import definitions
from fhir_server.resources.references import ID
from fhir_server.search import words
from fhir_server.search.canonical_references import canonical_targets, follows_canonicals, follows_references
from fhir_server.search.composites import composites
from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import AnyOf, Filter, IdIs, ReferredBy, RefersToMatch
from fhir_server.search.index import Parameter, parameter, parameters
from fhir_server.search.limits import MAX_STEPS, require_few_steps

HAS: Final = "_has"
LIST: Final = "_list"
_NOT_FOLLOWED: Final = "AuditEvent"
_NOT_REACHED: Final = "No chained parameter or _has leads to AuditEvents: most are lines of the audit log, which is read line by line."
_NAMED: Final = 8  # types that an error names

Rest = Callable[[str, str], Filter]
"""The condition of a type and a parameter's name, which may be chained too.  Raises :class:`NotInTypeError` if the type has none such."""


class NotInTypeError(Exception):
    """A type does not have a parameter in a chain, or a reference does not lead there.  The text is for the caller."""


@dataclass(slots=True)
class StepCount:
    """Counts the steps of one criterion while it is parsed, because each may lead to many types."""

    number: int = 0

    def add(self, more: int) -> None:
        """Count more steps.  Raises Problem ``invalid`` if there are too many."""
        self.number += more
        require_few_steps(self.number)


def is_chained(name: str) -> bool:
    """Whether the name of a search parameter leads to another type."""
    return "." in name or _code(name) == HAS


def in_lists(type: str, value: str) -> Filter:
    """The condition of ``_list``: rows that an entry of one of these Lists names (http://hl7.org/fhir/R4/search.html#list).

    Raises ValueError that says what is wrong, NotInTypeError.
    """
    ids = [unescape(text) for text in split(value, ",")]
    if not all(ID.fullmatch(id) for id in ids):
        raise ValueError("it must be the id of a List; lists such as $current-problems are not supported")
    return ReferredBy("List", "item", IdIs(frozenset(ids)))


def kind_of(type: str, name: str) -> str:
    """The kind of the search parameter to which a chain of codes leads, in any of the types that it may lead to; "" if there is none."""
    *heads, last = name.split(".", MAX_STEPS)
    types = {type}
    for head in heads:
        followed = [_targets(parameters(one)[head]) for one in types if head in parameters(one)]
        types = {target for targets in followed for target in targets}
    return min((parameters(one)[last].definition.kind for one in types if last in parameters(one)), default="")


def condition(type: str, name: str, rest: Rest, count: StepCount) -> Filter:
    """The condition of rows of ``type`` by a chained name.  Raises NotInTypeError and Problem ``invalid``."""
    return _reverse(type, name, rest, count) if _code(name) == HAS else _forward(type, name, rest, count)


def literal_lead(type: str, head: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters whose entries a step reads, and the types to which it may lead by literal references, by ``reference[:Type]``.

    Raises NotInTypeError if there is no such step.
    """
    params, types, by_canonical = _lead(type, head)
    if type == _NOT_FOLLOWED:
        raise NotInTypeError(f"{type} cannot be sorted by chained parameters.")
    if by_canonical:
        raise NotInTypeError(f"The parameter {head.partition(':')[0]!r} of {type} holds canonical URLs, by which a sort key cannot go.")
    return params, types


def _lead(type: str, head: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """As :func:`literal_lead`, also by canonical URLs, and whether the step goes by these."""
    code, colon, named = head.partition(":")
    reference = _reference(type, code)
    by_canonical = not follows_references(reference)
    possible = _targets(reference)
    if colon and named not in possible:
        raise NotInTypeError(f"The parameter {code!r} of {type} does not refer to {named!r}.")
    if named == _NOT_FOLLOWED:
        raise NotInTypeError(_NOT_REACHED)
    types = (named,) if colon else possible
    return reference.indexed_as.params, tuple([one for one in types if one != _NOT_FOLLOWED]), by_canonical


def _forward(type: str, name: str, rest: Rest, count: StepCount) -> Filter:
    head, _, tail = name.partition(".")
    params, types, by_canonical = _lead(type, head)
    steps: list[Filter] = []
    missing: NotInTypeError | None = None
    for target in types:
        parameter(target, _code(tail))  # refused if it is not ready: the other types alone would be an answer in part
        if ":" not in head and _code(tail) not in (HAS, LIST, *words.parameters(target), *parameters(target), *composites(target)):
            continue
        count.add(len(params))
        try:
            inner = rest(target, tail)
        except NotInTypeError as error:
            missing = error
            continue
        steps += [RefersToMatch(param, target, inner, by_canonical=by_canonical) for param in params]
    if not steps:
        raise missing if missing is not None and len(types) == 1 else _in_none(types, tail)
    return _any_of(steps)


def _targets(reference: Parameter) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reference.targets)) if follows_references(reference) else canonical_targets(reference)


def _reverse(type: str, name: str, rest: Rest, count: StepCount) -> Filter:
    parts = name.split(":", 3)
    if len(parts) != 4 or not all(parts):
        raise Problem("invalid", f"{name!r} must be _has:Type:reference parameter:search parameter.")
    _, source, code, tail = parts
    if source == _NOT_FOLLOWED:
        raise NotInTypeError(_NOT_REACHED)
    if source not in definitions.types():
        raise Problem("invalid", f"_has cannot look for {source!r}.")
    reference = _reference(source, code)
    if type not in _targets(reference):
        raise NotInTypeError(f"The parameter {code!r} of {source} does not refer to {type!r}.")
    params = reference.indexed_as.params
    count.add(len(params))
    inner = rest(source, tail)
    by_canonical = not follows_references(reference)
    return _any_of([ReferredBy(source, param, inner, by_canonical=by_canonical) for param in params])


def _reference(type: str, code: str) -> Parameter:
    found = parameter(type, code)
    if found is None or found.definition.kind != "reference":
        raise NotInTypeError(f"{type} has no reference parameter {code!r}.")
    if follows_references(found) and follows_canonicals(found):  # none of R4's does
        raise NotInTypeError(f"The parameter {code!r} of {type} holds both references and canonical URLs and cannot be chained.")
    return found


def _code(name: str) -> str:
    return name.partition(".")[0].partition(":")[0]


def _in_none(types: tuple[str, ...], tail: str) -> NotInTypeError:
    if len(types) == 1:
        return NotInTypeError(f"{types[0]} has no search parameter {tail!r}.")
    named = ", ".join(types) if len(types) <= _NAMED else f"the {len(types)} types to which the reference may lead"
    return NotInTypeError(f"None of {named} has the search parameter {tail!r}.")


def _any_of(steps: list[Filter]) -> Filter:
    return steps[0] if len(steps) == 1 else AnyOf(tuple(steps))
