"""Compiles the paths of search parameters to closures that walk a resource.

A walk calls its sink with every value it finds and the element path of the value: member names and array indexes. A choice element
(``effective[x]``) is found under the member names of its datatypes (``effectiveDateTime``). For the datatypes that one search parameter
type takes, no other element of R4 has such a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.references import type_at_end
from fhir_server.search.expression import Branch, Member, Step, TrueUnlessFalse, WhereEquals, WhereRefersTo

Out = list[Any]
Walk = Callable[[Any, Path, Out], None]


def compile_walk(branch: Branch, suffixes: Sequence[str], sink: Walk) -> list[tuple[str, Walk]]:
    """(name, walk) of each top-level member with which this path may begin; the walk takes the value of the member.

    ``suffixes`` are the datatypes, as written in member names, of a choice element at the end of the path.
    """
    first, *rest = branch
    if isinstance(branch[-1], TrueUnlessFalse):
        suffixes = _any_datatype()
    if not isinstance(first, Member):
        raise ValueError(f"a path must begin with a member: {branch}")
    walk = sink
    for number in range(len(rest), 0, -1):
        walk = _step(branch[number], suffixes if _is_last_member(branch, number) else (), walk)
    return [(key, _enter(key, walk)) for key in _keys(first, suffixes if _is_last_member(branch, 0) else ())]


def _any_datatype() -> Sequence[str]:
    return tuple(name[0].upper() + name[1:] for name in (*definitions.datatypes(), *definitions.primitives()))


def _is_last_member(branch: Branch, number: int) -> bool:
    return not any(isinstance(step, Member) for step in branch[number + 1 :])


def _keys(member: Member, suffixes: Sequence[str]) -> tuple[str, ...]:
    if member.cast is not None:
        return (member.name + member.cast[0].upper() + member.cast[1:],)
    return (member.name, *(member.name + suffix for suffix in suffixes))


def _step(step: Step, suffixes: Sequence[str], walk: Walk) -> Walk:
    match step:
        case Member():
            return _descend([(key, _enter(key, walk)) for key in _keys(step, suffixes)])
        case WhereEquals(name, value):
            return _where(lambda item: item.get(name) == value, walk)
        case WhereRefersTo(type):
            return _where(lambda item: type in (type_at_end(item.get("reference", "")), item.get("type")), walk)
        case TrueUnlessFalse():
            return lambda value, path, out: walk(True, path, out) if value is not False else None
    raise TypeError(f"not a step: {step!r}")


def _enter(key: str, walk: Walk) -> Walk:
    def enter(child: Any, path: Path, out: Out) -> None:
        if type(child) is not list:
            walk(child, (*path, key), out)
            return
        for index, item in enumerate(child):
            if item is not None:
                walk(item, (*path, key, index), out)

    return enter


def _descend(members: list[tuple[str, Walk]]) -> Walk:
    def descend(value: Any, path: Path, out: Out) -> None:
        if type(value) is dict:
            for key, enter in members:
                child = value.get(key)
                if child is not None:
                    enter(child, path, out)

    return descend


def _where(matches: Callable[[dict[str, Any]], bool], walk: Walk) -> Walk:
    def where(value: Any, path: Path, out: Out) -> None:
        if type(value) is dict and matches(value):
            walk(value, path, out)

    return where
