"""Finding one's way in a parsed resource: element paths of the catalogue, references, free text."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions

_LITERAL: Final = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
# Members whose text says in words what codes elsewhere may hide.
_WORDS: Final = frozenset({
    "description", "comment", "patientInstruction", "conclusion", "title", "summary", "text", "name", "valueString",
})  # fmt: skip


def at(resource: Mapping[str, Any], path: str) -> Iterator[tuple[Path, Any]]:
    """Every value at an element path such as ``code``, ``participant.actor`` or ``value[x]``, with where it stands."""
    yield from _at(resource, path.split("."), ())


def _at(node: Any, steps: list[str], path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from _at(item, steps, (*path, number))
    elif not steps:
        yield path, node
    elif isinstance(node, dict):
        name, rest = steps[0], steps[1:]
        if name.endswith("[x]"):
            stem = name[:-3]
            for key, value in node.items():
                if key.startswith(stem) and key[len(stem) : len(stem) + 1].isupper():
                    yield from _at(value, rest, (*path, key))
        elif name in node:
            yield from _at(node[name], rest, (*path, name))


def literal(value: Any) -> tuple[str, str] | None:
    """(type, id) of a relative literal reference, given as Reference or as text; None for anything else."""
    text = value.get("reference") if isinstance(value, dict) else value
    found = _LITERAL.fullmatch(text) if isinstance(text, str) else None
    return (found[1], found[2]) if found else None


def mentions(node: Any, path: Path = ()) -> Iterator[tuple[Path, tuple[str, str] | None, str]]:
    """Every Reference, Attachment url and free text below ``node``: where, the (type, id) it points at if any, its words."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from mentions(item, (*path, number))
    elif isinstance(node, dict):
        target = literal(node) or literal(node.get("url"))
        if target is not None or "reference" in node or ("display" in node and "code" not in node):
            yield path, target, str(node.get("display", ""))
        for key, value in node.items():
            if key in _WORDS and isinstance(value, str):
                yield (*path, key), None, value
            elif isinstance(value, dict | list):
                yield from mentions(value, (*path, key))


def cut(type: str, path: Path) -> Path:
    """What must go when the reference at ``path`` goes: its backbone element, where that cannot be without the reference."""
    while (names := [step for step in path if isinstance(step, str)])[1:] and ".".join([type, *names]) in _indispensable(type):
        path = path[: max(place for place, step in enumerate(path) if isinstance(step, str))]
    return path


@functools.cache
def _indispensable(type: str) -> frozenset[str]:
    """Paths of the elements below the root that R4 requires in their parent."""
    return frozenset(one.path for one in definitions.elements(type) if one.min > 0 and one.path.count(".") > 1)
