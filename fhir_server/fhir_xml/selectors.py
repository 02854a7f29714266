"""The selectors of XML Patch: the part of XPath that RFC 5261 names, and R4 needs.

Steps to child elements by name or ``*``, with predicates: a position, ``@a='x'``, ``f:b/@value='x'``, ``f:b='x'``, ``.='x'``.  The last
step may be an attribute or ``text()``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fhir_server.errors import Problem
from fhir_server.fhir_xml.tree import Node
from fhir_server.fhir_xml.values import quoted

MAX_LENGTH: Final = 2000
_NAME: Final = r"(?:[A-Za-z_][\w.\-]*:)?(?:[A-Za-z_][\w.\-]*|\*)"
_step = re.compile(rf"(?P<name>{_NAME})(?P<predicates>(?:\[(?:[^\]\"']|\"[^\"]*\"|'[^']*')*\])*)").match
_predicates = re.compile(r"\[((?:[^\]\"']|\"[^\"]*\"|'[^']*')*)\]").findall
_comparison = re.compile(
    rf"\s*(?P<path>\.|(?:{_NAME})(?:/{_NAME})*|(?=@))(?:(?:(?<=.)/|(?<=^)|(?<=\s))@(?P<attribute>[A-Za-z]+))?"
    r"\s*=\s*(?P<value>\"[^\"]*\"|'[^']*')\s*"
).fullmatch
_last = re.compile(r"@(?P<attribute>[A-Za-z]+)|(?P<text>text\(\)(?:\[1\])?)").fullmatch

Name = tuple[str, str]
Predicate = Callable[[Node], bool]
Place = tuple[Node | None, Node]
"""An element and its parent."""


@dataclass(frozen=True, slots=True)
class Selector:
    """``steps`` to an element, by name and predicates (a position is a number); ``attribute`` of it, or "text()", or ""."""

    steps: tuple[tuple[Name, tuple[Predicate | int, ...]], ...]
    attribute: str

    @property
    def weight(self) -> int:
        """How often each element of a resource may be looked at: its steps and predicates."""
        return sum(1 + len(predicates) for _, predicates in self.steps)

    def find(self, root: Node) -> list[Place]:
        """Parent and element of each place that it selects in a tree."""
        found: list[Place] = [(None, root)]
        for number, (name, predicates) in enumerate(self.steps):
            groups: list[list[Place]] = [[(node, child) for child in node.elements] for _, node in found] if number else [found]
            found = [pair for group in groups for pair in _filtered(group, name, predicates)]
        return found


def _filtered(group: list[Place], name: Name, predicates: tuple[Predicate | int, ...]) -> list[Place]:
    group = [pair for pair in group if _is_named(pair[1], name)]
    for predicate in predicates:
        at = predicate if isinstance(predicate, int) else 0
        group = group[at - 1 : at] if isinstance(predicate, int) else [pair for pair in group if predicate(pair[1])]
    return group


def _is_named(node: Node, name: Name) -> bool:
    return name[1] in ("*", node.name) and (name == ("", "*") or name[0] == node.namespace)


def parse(text: str, prefixes: Mapping[str, str]) -> Selector:
    """The selector in a text, in which prefixes, and "" for names without one, stand for namespaces.  Raises Problem ``invalid``."""
    rest = text.strip().removeprefix("/")
    if len(text) > MAX_LENGTH:
        raise Problem("invalid", f"A selector has at most {MAX_LENGTH} characters.")
    steps: list[tuple[Name, tuple[Predicate | int, ...]]] = []
    attribute = ""
    while rest:
        if steps and (last := _last(rest)):
            attribute, rest = last["attribute"] or "text()", ""
            break
        step = _step(rest)
        if step is None or (step.end() < len(rest) and rest[step.end()] != "/") or rest[step.end() :] == "/":
            break
        predicates = tuple(_predicate(one, prefixes, text) for one in _predicates(step["predicates"]))
        steps.append((_name(step["name"], prefixes), predicates))
        rest = rest[step.end() + 1 :]
    if rest or not steps:
        raise _unreadable(text)
    return Selector(tuple(steps), attribute)


def _predicate(text: str, prefixes: Mapping[str, str], whole: str) -> Predicate | int:
    if re.fullmatch(r"\s*[1-9][0-9]{0,8}\s*", text):
        return int(text)
    found = _comparison(text)
    if found is None:
        raise _unreadable(whole)
    path, attribute, value = found["path"], found["attribute"], found["value"][1:-1]
    names = [_name(one, prefixes) for one in path.split("/")] if path not in ("", ".") else []

    def holds(node: Node) -> bool:
        nodes = [node]
        for name in names:
            nodes = [child for one in nodes for child in one.elements if _is_named(child, name)]
        return any((one.attributes.get(attribute) if attribute else one.text) == value for one in nodes)

    return holds


def _name(text: str, prefixes: Mapping[str, str]) -> Name:
    prefix, _, local = text.rpartition(":")
    if text == "*":
        return "", "*"
    if prefix and prefix not in prefixes:
        raise Problem("invalid", f"The prefix {quoted(prefix)} of a selector is not declared.")
    return prefixes.get(prefix, ""), local


def _unreadable(text: str) -> Problem:
    return Problem("invalid", f"The selector {quoted(text)} is not one that XML Patch (RFC 5261) has and this server reads.")
