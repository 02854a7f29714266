"""Finds elements and references in a parsed resource."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.references import Target, url_target, versioned_target
from fhir_server.resources.server_base import server_base

_MAX_CACHED: Final = 200  # characters of a link
Found = list[tuple[Path, Any]]
_Walk = Callable[[Any, Path, Found], None]


def at(resource: Mapping[str, Any], path: str) -> Found:
    """(path, value) of each value at an element path such as ``code``, ``participant.actor`` or ``value[x]``."""
    stem, walk = _compiled(path)
    found: Found = []
    if stem in resource or stem == "":
        walk(resource, (), found)
    return found


def located(resource: Mapping[str, Any], paths: tuple[str, ...]) -> list[tuple[str, Path, Any]]:
    """(element path, path, value) of each value at one of these element paths, which count once each."""
    found: list[tuple[str, Path, Any]] = []
    for path, stem, walk in _plan(paths):
        if stem in resource or stem == "":
            values: Found = []
            walk(resource, (), values)
            for place, value in values:
                found.append((path, place, value))
    return found


@functools.cache
def _plan(paths: tuple[str, ...]) -> tuple[tuple[str, str, _Walk], ...]:
    return tuple((path, *_compiled(path)) for path in dict.fromkeys(paths))


@functools.cache
def _compiled(path: str) -> tuple[str, _Walk]:
    """The member with which an element path starts ("" for a choice element, which has several), and its walk."""
    walk: _Walk = _collect
    steps = path.split(".")
    for step in reversed(steps):
        walk = _choice(step[:-3], walk) if step.endswith("[x]") else _member(step, walk)
    return "" if steps[0].endswith("[x]") else steps[0], walk


def _collect(node: Any, path: Path, found: Found) -> None:
    if type(node) is list:
        for number, item in enumerate(node):
            _collect(item, (*path, number), found)
    else:
        found.append((path, node))


def _member(name: str, inner: _Walk) -> _Walk:
    def walk(node: Any, path: Path, found: Found) -> None:
        kind = type(node)
        if kind is dict:
            if name in node:
                inner(node[name], (*path, name), found)
        elif kind is list:
            for number, item in enumerate(node):
                walk(item, (*path, number), found)

    return walk


def _choice(stem: str, inner: _Walk) -> _Walk:
    def walk(node: Any, path: Path, found: Found) -> None:
        kind = type(node)
        if kind is dict:
            for name, value in node.items():
                if name.startswith(stem) and name[len(stem) : len(stem) + 1].isupper():
                    inner(value, (*path, name), found)
        elif kind is list:
            for number, item in enumerate(node):
                walk(item, (*path, number), found)

    return walk


def target_of(value: Any) -> Target | None:
    """(type, id) of a relative literal reference, with or without a version, given as a Reference or as its text; None otherwise."""
    text = value.get("reference") if isinstance(value, dict) else value
    return versioned_target(text) if isinstance(text, str) else None


def link_target(text: str, base: str) -> Target | None:
    """The resource of this server that a reference or URL leads to; ``base`` is the server's FHIR base URL.

    Unlike references, URLs keep the base; so do references in a stored Bundle.
    """
    return _link_target(text, base) if len(text) < _MAX_CACHED else _link_target.__wrapped__(text, base)


@functools.lru_cache(8192)  # most links are to the same few people and places, or URLs of extensions
def _link_target(text: str, base: str) -> Target | None:
    target = versioned_target(text)
    if target is not None:
        return target
    relative = server_base(base).relative(text)
    return url_target(text if relative is None else relative)


def removal_path(type: str, path: Path) -> Path:
    """The path to remove if the reference at ``path`` is hidden: its backbone element, if R4 requires the reference there."""
    while (names := [step for step in path if isinstance(step, str)])[1:] and ".".join([type, *names]) in _required_paths(type):
        path = path[: max(place for place, step in enumerate(path) if isinstance(step, str))]
    return path


@functools.cache
def _required_paths(type: str) -> frozenset[str]:
    """Paths of the elements of backbone elements that R4 requires in their parent."""
    return frozenset(element.path for element in definitions.elements(type) if element.min > 0 and element.path.count(".") > 1)
