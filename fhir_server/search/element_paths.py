"""Compiles the paths of search parameters to closures that walk a resource and keep account of where they are.

A walk calls its sink with every value it finds and that value's element path: member names and array indexes.
A choice element (``effective[x]``) is found under the member names its datatypes give it (``effectiveDateTime``);
R4 has no element whose name such a member could be mistaken for, within the datatypes one kind of parameter takes.
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
    """For each top-level member that may begin this path: its name, and the walk to start on that member's value.

    ``suffixes`` are the datatypes, as written in member names, that a choice at the path's end may have.
    """
    first, *rest = branch
    if isinstance(branch[-1], TrueUnlessFalse):
        suffixes = _any_datatype()
    if not isinstance(first, Member):
        raise ValueError(f"a path must begin with a member: {branch}")
    walk = sink
    for place in range(len(rest), 0, -1):
        walk = _step(branch[place], suffixes if _ends(branch, place) else (), walk)
    return [(key, _enter(key, walk)) for key in _keys(first, suffixes if _ends(branch, 0) else ())]


def _any_datatype() -> Sequence[str]:
    return tuple(name[0].upper() + name[1:] for name in (*definitions.datatypes(), *definitions.primitives()))


def _ends(branch: Branch, place: int) -> bool:
    return not any(isinstance(step, Member) for step in branch[place + 1 :])


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
        for place, item in enumerate(child):
            if item is not None:
                walk(item, (*path, key, place), out)

    return enter


def _descend(members: list[tuple[str, Walk]]) -> Walk:
    def descend(value: Any, path: Path, out: Out) -> None:
        if type(value) is dict:
            for key, enter in members:
                child = value.get(key)
                if child is not None:
                    enter(child, path, out)

    return descend


def _where(holds: Callable[[dict[str, Any]], bool], walk: Walk) -> Walk:
    def where(value: Any, path: Path, out: Out) -> None:
        if type(value) is dict and holds(value):
            walk(value, path, out)

    return where
