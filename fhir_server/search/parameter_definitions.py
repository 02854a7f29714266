"""Reads a SearchParameter resource (http://hl7.org/fhir/R4/searchparameter.html): which parameters of which types it adds.

Whatever could not be answered exactly is refused: expressions beyond the subset that R4's own parameters use, types of values that the
kind of parameter does not take, names that a type already has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element, ParameterKind
from fhir_server.search import words
from fhir_server.search.composites import composites
from fhir_server.search.criteria import UNSUPPORTED_NARROWING
from fhir_server.search.custom_parameters import CustomParameter
from fhir_server.search.expression import Branch, Member, TrueUnlessFalse, WhereEquals, WhereRefersTo, parse
from fhir_server.search.index import r4_parameters
from fhir_server.search.parameter_types import PARAMETER_TYPES
from fhir_server.search.result_parameters import CONTROLS

_CODE: Final = re.compile("[A-Za-z][A-Za-z0-9-]{0,63}")
_PIECE: Final = re.compile(r"(?:[^|']|'[^']*')+")
_HEAD: Final = re.compile(r"[(\s]*([A-Z]\w*)\s*[.)]")
# Its searches read lines of the audit log, which have no index entries in the store.
_NOT_INDEXED: Final = frozenset({"AuditEvent"})
_OF_ALL: Final = frozenset({"Resource", "DomainResource"})
# Resources within others have parameters of their own, and what narrative says is for people.
_NOT_ENTERED: Final = frozenset({"Resource", "Narrative", "xhtml"})
_WITH_CHILDREN: Final = frozenset({"BackboneElement", "Element"})  # children are defined where the element is
_MAX_BRANCHES: Final = 100
# The datatypes of which each kind takes values, with a capital (http://hl7.org/fhir/R4/search.html#table).
_ALSO: Final = {"string": {"HumanName", "Address"}, "token": {"ContactPoint", "Id", "String"}}
_VALUES: Final = {kind: {*type.suffixes, *_ALSO.get(kind, ())} for kind, type in PARAMETER_TYPES.items()} | {"reference": {"Reference"}}


def read(resource: Mapping[str, Any]) -> tuple[CustomParameter, ...]:
    """The parameters that a valid SearchParameter adds; none if it is not active, or if R4 has it already with the same expression.

    Raises ValueError that says, to whoever wrote it, why it cannot be used.
    """
    if resource.get("status") != "active":
        return ()
    code, kind, bases = resource.get("code", ""), resource.get("type", ""), tuple(dict.fromkeys(resource.get("base", ())))
    if kind not in PARAMETER_TYPES or kind == "special" or resource.get("component"):
        raise ValueError(f"a search parameter of type {kind!r} is not supported")
    for base in bases:
        if base not in definitions.types():
            raise ValueError(f"{base!r} cannot be its base; name types of resources one by one")
    branches = _branches(resource.get("expression", ""), bases)
    added = [base for base in bases if not _is_of_r4(base, code, kind, branches[base])]
    if added and not _CODE.fullmatch(code):
        raise ValueError(f"the code {code!r} must be a letter, followed by at most 63 letters, digits and hyphens")
    return tuple(_parameter(base, code, kind, branches[base], _targets(kind, resource.get("target", ()))) for base in added)


def _is_of_r4(base: str, code: str, kind: str, branches: list[Branch]) -> bool:
    own = r4_parameters(base).get(code)
    return own is not None and own.definition.kind == kind and {*parse(own.definition.expression)} == {*branches}


def _parameter(base: str, code: str, kind: ParameterKind, branches: list[Branch], targets: tuple[str, ...]) -> CustomParameter:
    if base in _NOT_INDEXED:
        raise ValueError(f"{base!r} cannot be its base")
    ends = [end for branch in branches for end in _ends(base, branch, kind)]
    if len(ends) > _MAX_BRANCHES:
        raise ValueError("its expression is too long")
    datatypes = frozenset().union(*(end.datatypes for end in ends))
    for unfit in sorted(one for one in datatypes if one[0].upper() + one[1:] not in _VALUES[kind]):
        raise ValueError(f"a search parameter of type {kind!r} does not take values of type {unfit!r}")
    r4 = {one.code for one in definitions.search_parameters(base)}
    if code in {*r4, *composites(base), *words.parameters(base), *CONTROLS, *UNSUPPORTED_NARROWING}:
        raise ValueError(f"{base} already has a search parameter {code!r}")
    expression = " | ".join(dict.fromkeys(_text(base, end.steps) for end in ends))
    return CustomParameter(base, code, kind, expression, targets if kind == "reference" else (), tuple(sorted(datatypes)))


def _targets(kind: str, named: Iterable[str]) -> tuple[str, ...]:
    targets = tuple(dict.fromkeys(named))
    if kind == "reference" and not targets:
        raise ValueError("a reference parameter must name its target types")
    for target in targets:
        if target not in definitions.types():
            raise ValueError(f"{target!r} cannot be its target; name types of resources one by one")
    return targets


def _branches(expression: str, bases: tuple[str, ...]) -> dict[str, list[Branch]]:
    """The branches of the union, by the type that each begins with."""
    found: dict[str, list[Branch]] = {base: [] for base in bases}
    for piece in _PIECE.findall(expression):
        head = _HEAD.match(piece)
        named = bases if head is not None and head[1] in _OF_ALL else (head[1],) if head is not None else ()
        if not named or not found.keys() >= {*named}:
            raise ValueError(f"each part of its expression must begin with one of its bases: {piece.strip()!r}")
        for base in named:
            found[base] += parse(piece)
    if not found or not all(found.values()):
        raise ValueError("its expression must select something in each of its bases")
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Where some steps of a path have led: the children there are elements of ``holder`` below ``path``."""

    steps: Branch
    holder: str
    path: str
    datatypes: frozenset[str] = frozenset()


def _ends(base: str, branch: Branch, kind: str) -> list[_Place]:
    """Where a branch ends; each choice before the end has its datatype."""
    places = [_Place((), base, base)]
    for number, step in enumerate(branch):
        if isinstance(step, TrueUnlessFalse):
            raise ValueError(f"its expression is not supported: {_text(base, branch)}")
        if not isinstance(step, Member):
            places = [replace(place, steps=(*place.steps, step)) for place in places]
            continue
        is_last = not any(isinstance(later, Member) for later in branch[number + 1 :])
        places = [child for place in places for child in _children(place, step, is_last)]
        if not places:
            raise ValueError(f"there is no element {step.name!r} at this place of its expression: {_text(base, branch)}")
    if not branch:
        raise ValueError("its expression must select elements")
    return [_of_kind(place, kind) for place in places]


def _of_kind(place: _Place, kind: str) -> _Place:
    """Of a choice without a cast, the datatypes of which this kind takes values."""
    fit = frozenset(type for type in place.datatypes if type[0].upper() + type[1:] in _VALUES[kind])
    return replace(place, datatypes=fit) if fit and len(place.datatypes) > 1 else place


def _children(place: _Place, step: Member, is_last: bool) -> list[_Place]:
    elements = _elements(place.holder)
    element = elements.get(f"{place.path}.{step.name}")
    if element is not None:
        types = frozenset(one.code for one in element.types)
        if step.cast or types & _NOT_ENTERED:
            return []
        return [_at(place, step, element, types)]
    choice = elements.get(f"{place.path}.{step.name}[x]")
    if choice is None:
        return _spelled_out(place, step, elements)
    types = frozenset(one.code for one in choice.types if step.cast in (None, one.code))
    if is_last and step.cast is None:
        return [_Place((*place.steps, step), "", "", types)]
    return [_Place((*place.steps, replace(step, cast=type)), type, type, frozenset({type})) for type in sorted(types)]


def _at(place: _Place, step: Member, element: Element, types: frozenset[str]) -> _Place:
    steps, below = (*place.steps, step), element.like or element.path
    if len(types) == 1 and (datatype := next(iter(types))) not in _WITH_CHILDREN:
        return _Place(steps, datatype, datatype, types)
    return _Place(steps, place.holder, below, types)


def _spelled_out(place: _Place, step: Member, elements: Mapping[str, Element]) -> list[_Place]:
    """``valueDateTime``: a way to write ``value.ofType(dateTime)`` that some packages use."""
    return [
        _Place((*place.steps, Member(name, one.code)), one.code, one.code, frozenset({one.code}))
        for path, element in elements.items()
        if path.endswith("[x]") and path.startswith(place.path + ".") and not step.cast
        for name in [path[len(place.path) + 1 : -3]]
        for one in element.types
        if name + one.code[0].upper() + one.code[1:] == step.name
    ]


@cache
def _elements(name: str) -> Mapping[str, Element]:
    if name not in definitions.types() and name not in definitions.datatypes():
        return {}
    return {element.path: element for element in definitions.elements(name)}


def _text(base: str, branch: Branch) -> str:
    text = base
    for step in branch:
        match step:
            case Member(name, cast):
                text += f".{name}" + (f".as({cast})" if cast else "")
            case WhereEquals(name, value):
                text += f".where({name}='{value}')"
            case WhereRefersTo(type):
                text += f".where(resolve() is {type})"
            case TrueUnlessFalse():
                text += ".exists()"
    return text
