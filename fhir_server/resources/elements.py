"""Finds elements and references in a parsed resource."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.references import Target, relative_target


def at(resource: Mapping[str, Any], path: str) -> list[tuple[Path, Any]]:
    """(path, value) of each value at an element path such as ``code``, ``participant.actor`` or ``value[x]``."""
    steps, stem = _steps(path)
    found: list[tuple[Path, Any]] = []
    if stem in resource or stem == "":
        _at(resource, steps, (), found)
    return found


def present(resource: Mapping[str, Any], paths: tuple[str, ...]) -> list[str]:
    """The element paths whose first member the resource has, without duplicates; the other paths have no values."""
    return [path for path, stem in _first_members(paths) if stem in resource or stem == ""]


@functools.cache
def _first_members(paths: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((path, _steps(path)[1]) for path in dict.fromkeys(paths))


@functools.cache
def _steps(path: str) -> tuple[tuple[str, ...], str]:
    """The steps, and the member with which they start ("" for a choice element, which has several)."""
    steps = tuple(path.split("."))
    return steps, "" if steps[0].endswith("[x]") else steps[0]


def _at(node: Any, steps: tuple[str, ...], path: Path, found: list[tuple[Path, Any]]) -> None:
    kind = type(node)
    if kind is list:
        for number, item in enumerate(node):
            _at(item, steps, (*path, number), found)
    elif not steps:
        found.append((path, node))
    elif kind is dict:
        name, rest = steps[0], steps[1:]
        if name.endswith("[x]"):
            stem = name[:-3]
            for key, value in node.items():
                if key.startswith(stem) and key[len(stem) : len(stem) + 1].isupper():
                    _at(value, rest, (*path, key), found)
        elif name in node:
            _at(node[name], rest, (*path, name), found)


def target_of(value: Any) -> Target | None:
    """(type, id) of a relative literal reference, given as a Reference or as its text; None for any other value.

    A version, a fragment and a query are ignored.
    """
    text = value.get("reference") if isinstance(value, dict) else value
    return relative_target(text) if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class Mention:
    """A Reference or an Attachment's url: its path, and the (type, id) that it refers to, if any."""

    path: Path
    target: Target | None


def mentions(resource: Mapping[str, Any], base: str = "") -> list[Mention]:
    """All references and attachment URLs in a resource; ``base`` is the server's FHIR base URL."""
    found: list[Mention] = []
    _mentions(resource, (), found, base)
    return found


def _mentions(node: dict[str, Any] | Mapping[str, Any], path: Path, found: list[Mention], base: str) -> None:
    if "reference" in node or "url" in node:
        target = target_of(node) or _url_target(node.get("url"), base)
        if target is not None or "url" not in node:
            found.append(Mention(path, target))
    for key, value in node.items():
        kind = type(value)
        if kind is dict:
            _mentions(value, (*path, key), found, base)
        elif kind is list:
            for number, item in enumerate(value):
                if type(item) is dict:
                    _mentions(item, (*path, key, number), found, base)


def _url_target(url: Any, base: str) -> Target | None:
    """The resource of this server that a URL leads to.  URLs, unlike references, are stored as written, with the base."""
    return target_of(url.removeprefix(base + "/") if base and isinstance(url, str) else url)


def removal_path(type: str, path: Path) -> Path:
    """The path to remove if the reference at ``path`` is hidden: its backbone element, if R4 requires the reference there."""
    while (names := [step for step in path if isinstance(step, str)])[1:] and ".".join([type, *names]) in _required_paths(type):
        path = path[: max(place for place, step in enumerate(path) if isinstance(step, str))]
    return path


@functools.cache
def _required_paths(type: str) -> frozenset[str]:
    """Paths of the elements of backbone elements that R4 requires in their parent."""
    return frozenset(element.path for element in definitions.elements(type) if element.min > 0 and element.path.count(".") > 1)
