"""Finding one's way in a parsed resource: element paths of the catalogue, references, free text."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions

_LITERAL: Final = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:[?#].*)?")
# Members whose text says in words what codes elsewhere may hide.
_WORDS: Final = frozenset({
    "description", "comment", "patientInstruction", "conclusion", "title", "summary", "text", "name", "valueString",
})  # fmt: skip


def at(resource: Mapping[str, Any], path: str) -> list[tuple[Path, Any]]:
    """Every value at an element path such as ``code``, ``participant.actor`` or ``value[x]``, with where it stands."""
    steps, stem = _steps(path)
    found: list[tuple[Path, Any]] = []
    if stem in resource or stem == "":
        _at(resource, steps, (), found)
    return found


def present(resource: Mapping[str, Any], paths: tuple[str, ...]) -> list[str]:
    """Those of these element paths, each once, whose first member the resource has: at all others there is nothing."""
    return [path for path, stem in _starts(paths) if stem in resource or stem == ""]


@functools.cache
def _starts(paths: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((path, _steps(path)[1]) for path in dict.fromkeys(paths))


@functools.cache
def _steps(path: str) -> tuple[tuple[str, ...], str]:
    """The steps, and the member they start with ("" for a choice, which has many)."""
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


def literal(value: Any) -> tuple[str, str] | None:
    """(type, id) of a relative literal reference, given as Reference or as text; None for anything else.

    Whatever follows the address of a row (``#part``, ``?x=1``), it still names that row.
    """
    text = value.get("reference") if isinstance(value, dict) else value
    found = _LITERAL.fullmatch(text) if isinstance(text, str) else None
    return (found[1], found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Mention:
    """A Reference, an Attachment's url or a free text: where, the (type, id) it points at if any, and its words."""

    path: Path
    target: tuple[str, str] | None
    words: str


def mentions(resource: Mapping[str, Any], base: str = "") -> list[Mention]:
    """Everything in a resource that points elsewhere or says something in words; ``base``: what addresses of our own rows begin with."""
    found: list[Mention] = []
    _mentions(resource, (), found, base)
    return found


def _mentions(node: dict[str, Any] | Mapping[str, Any], path: Path, found: list[Mention], base: str) -> None:
    if "reference" in node or "url" in node or ("display" in node and "code" not in node):
        target = literal(node) or _referenced(node.get("url"), base)
        if target is not None or "url" not in node:
            found.append(Mention(path, target, str(node.get("display", ""))))
    for key, value in node.items():
        kind = type(value)
        if kind is str:
            if key in _WORDS:
                found.append(Mention((*path, key), None, value))
        elif kind is dict:
            _mentions(value, (*path, key), found, base)
        elif kind is list:
            for number, item in enumerate(value):
                if type(item) is dict:
                    _mentions(item, (*path, key, number), found, base)


def _referenced(url: Any, base: str) -> tuple[str, str] | None:
    """The row of ours that an address leads to; addresses, unlike references, are kept as they were written."""
    return literal(url.removeprefix(base + "/") if base and isinstance(url, str) else url)


def cut(type: str, path: Path) -> Path:
    """What must go when the reference at ``path`` goes: its backbone element, where that cannot be without the reference."""
    while (names := [step for step in path if isinstance(step, str)])[1:] and ".".join([type, *names]) in _indispensable(type):
        path = path[: max(place for place, step in enumerate(path) if isinstance(step, str))]
    return path


@functools.cache
def _indispensable(type: str) -> frozenset[str]:
    """Paths of the elements below the root that R4 requires in their parent."""
    return frozenset(one.path for one in definitions.elements(type) if one.min > 0 and one.path.count(".") > 1)
