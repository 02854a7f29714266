"""Which slice an item belongs to (http://hl7.org/fhir/R4/profiling.html#slicing), by its discriminators.

A slice says what it expects at a discriminator's path: a fixed value or pattern there, above it or below it, a required value set, a
type, a profile, or that something exists.  What cannot be decided (None) makes an item neither one of the slice nor of no slice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.profiles.elements import ABSENT, ElementNode
from fhir_server.profiles.items import Item, equals, items_of, matches
from fhir_server.profiles.known import Known
from fhir_server.resources.references import type_at_end

Verdict = bool | None
Conforms = Callable[[Item, str], Verdict]
"""Whether an item meets the profile with this URL; None if that is not known."""

_STEP: Final = re.compile(r"(?P<function>resolve|extension|ofType)\((?P<argument>[^)]*)\)|(?P<name>[A-Za-z]\w*)|\$this")


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a slice expects at a place: an element, or a part of a fixed value or pattern above it."""

    node: ElementNode | None = None
    fixed: Any = ABSENT
    pattern: Any = ABSENT


def belongs(item: Item, slice: ElementNode, discriminators: Iterable[tuple[str, str]], known: Known, conforms: Conforms) -> Verdict:
    """Whether an item belongs to a slice: it must meet each discriminator."""
    return _all(_meets(item, slice, kind, path, known, conforms) for kind, path in discriminators)


def _meets(item: Item, slice: ElementNode, kind: str, path: str, known: Known, conforms: Conforms) -> Verdict:
    expected, items, resolved = [_Expected(slice)], [item], False
    for step in _STEP.finditer(path):
        if step["function"] == "resolve":
            resolved = True
        elif step["function"] == "extension":
            url = step["argument"].strip("'\"")
            expected = [one for part in expected for one in _of_extension(part, url)]
            items = [inner for one in items for inner in items_of(one.members, "extension") if inner.members.get("url") == url]
        elif step["function"] == "ofType":
            items = [one for one in items if one.kind == step["argument"].rpartition(".")[2]]
        elif step["name"]:
            expected = [one for part in expected for one in _step(part, step["name"], known)]
            items = [inner for one in items for inner in _members(one, step["name"])]
    return _DECIDE[kind](items, expected, resolved, known, conforms)


def _members(item: Item, name: str) -> list[Item]:
    return items_of(item.members, name) or items_of(item.members, f"{name}[x]")


def _step(expected: _Expected, name: str, known: Known) -> list[_Expected]:
    found = []
    if expected.node is not None:
        inner = known.child(expected.node, name) or known.child(expected.node, f"{name}[x]")
        found += [_Expected(inner)] if inner is not None else []
        expected = _Expected(None, expected.node.fixed, expected.node.pattern)
    fixed, pattern = (_part(value, name) for value in (expected.fixed, expected.pattern))
    if fixed is not ABSENT or pattern is not ABSENT:
        found.append(_Expected(None, fixed, pattern))
    return found


def _part(value: Any, name: str) -> Any:
    """The member of a fixed value or pattern; of an array, of its first item."""
    value = value[0] if isinstance(value, list) and value else value
    return value.get(name, ABSENT) if isinstance(value, dict) else ABSENT


def _of_extension(expected: _Expected, url: str) -> list[_Expected]:
    node = expected.node.children.get("extension") if expected.node is not None else None
    slices = node.slices.values() if node is not None else ()
    return [
        _Expected(one)
        for one in slices
        if any(url in option.profiles for option in one.types) or getattr(one.children.get("url"), "fixed", None) == url
    ]


def _by_value(items: list[Item], expected: list[_Expected], resolved: bool, known: Known, conforms: Conforms) -> Verdict:
    return _all(_any(_has_value(one, part, known) for one in items) for part in expected) if expected else None


def _has_value(item: Item, expected: _Expected, known: Known) -> Verdict:
    node = expected.node
    if node is None:
        return _meets_fixed(item, expected.fixed, expected.pattern)
    verdicts: list[Verdict] = []
    if node.fixed is not ABSENT or node.pattern is not ABSENT:
        verdicts.append(_meets_fixed(item, node.fixed, node.pattern))
    for name, child in node.children.items():
        if _says_something(child):
            verdicts.append(_any(_has_value(one, _Expected(child), known) for one in items_of(item.members, name)))
    if not verdicts:
        verdicts += [_in_value_set(item, binding.value_set, known) for binding in node.bindings if binding.strict]
    return _all(verdicts) if verdicts else None


def _meets_fixed(item: Item, fixed: Any, pattern: Any) -> bool:
    return (fixed is ABSENT or equals(fixed, item.value)) and (pattern is ABSENT or matches(pattern, item.value))


def _says_something(node: ElementNode) -> bool:
    return node.fixed is not ABSENT or node.pattern is not ABSENT or any(map(_says_something, node.children.values()))


def _in_value_set(item: Item, url: str, known: Known) -> Verdict:
    codes = known.codes.get(url)
    return None if codes is None else any(is_among(system, code, codes) for system, code in codings_of(item.value))


def is_among(system: str, code: str, codes: Iterable[tuple[str, str]]) -> bool:
    """Whether a code is among (system, code) pairs; without a system, as the value of a ``code``, whether any has it."""
    return (system, code) in codes if system else any(other == code for _, other in codes)


def codings_of(value: Any) -> list[tuple[str, str]]:
    """The (system, code) pairs of a CodeableConcept, Coding or Quantity; of a ``code``, with "" as system."""
    if isinstance(value, str):
        return [("", value)]
    parts = value.get("coding", [value]) if isinstance(value, dict) else []
    found = [one for one in parts if isinstance(one, dict) and isinstance(one.get("code"), str)] if isinstance(parts, list) else []
    return [(str(one.get("system") or "?"), one["code"]) for one in found]


def _by_existence(items: list[Item], expected: list[_Expected], resolved: bool, known: Known, conforms: Conforms) -> Verdict:
    nodes = [part.node for part in expected if part.node is not None]
    if not nodes or (nodes[0].min == 0 and nodes[0].max > 0):
        return None
    return bool(items) == (nodes[0].max > 0)


def _by_type(items: list[Item], expected: list[_Expected], resolved: bool, known: Known, conforms: Conforms) -> Verdict:
    nodes = [part.node for part in expected if part.node is not None]
    if not nodes or not items:
        return None if not nodes else False
    if resolved:
        wanted = {known.target_type(url) for node in nodes for option in node.types for url in option.targets}
        found = {_target(one) for one in items}
        return None if "" in found | wanted or not wanted else found <= wanted
    wanted = {option.code for node in nodes for option in node.types}
    return all(one.kind in wanted for one in items) if all(one.kind for one in items) and wanted else None


def _target(item: Item) -> str:
    text = item.members.get("reference")
    return (type_at_end(text) if isinstance(text, str) else None) or str(item.members.get("type", ""))


def _by_profile(items: list[Item], expected: list[_Expected], resolved: bool, known: Known, conforms: Conforms) -> Verdict:
    if resolved:
        return _by_type(items, expected, resolved, known, conforms)
    urls = [url for part in expected if part.node is not None for option in part.node.types for url in option.profiles]
    return _any(conforms(one, url) for one in items for url in urls) if urls else None


_DECIDE: Final = {"value": _by_value, "pattern": _by_value, "exists": _by_existence, "type": _by_type, "profile": _by_profile}


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    found = list(verdicts)
    return False if False in found else None if None in found else True


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    found = list(verdicts)
    return True if True in found else None if None in found else False
