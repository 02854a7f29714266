"""Compiles HL7's definitions to checks.  A member of a type is compiled when it first occurs.

A :class:`Shape` checks a JSON object of one type or backbone element. The check of a member is a closure that is called with
(value, the object that holds it, the object's place, the run). Lazy compilation saves memory: R4 has 6,700 elements.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fhir_server.resources import _values, definitions
from fhir_server.resources.definitions import Element, TypeRef
from fhir_server.resources.invariants import Predicate, rule
from fhir_server.resources.validation_run import Place, ValidationRun, quote

Rule = tuple[str, Predicate]
"""``key: HL7's wording`` of an invariant, and its predicate."""

_MAX_CACHED_CODINGS: Final = 4096
_MAX_CACHED_LENGTH: Final = 500  # characters of a coding


class Choice(NamedTuple):
    """A choice element ``name[x]`` and the JSON names of its types, those with a leading underscore included."""

    name: str
    names: frozenset[str]
    required: bool


class Shape:
    """The compiled form of a type or of a backbone element."""

    def __init__(self, rows: tuple[Element, ...], rules: tuple[Rule, ...]) -> None:
        self._rows = {name: (row, ref) for row in rows for name, ref in _json_names(row)}
        self._members: dict[str, _values.Check] = {}
        own = [row for row in rows if not row.path.endswith("[x]")]
        self._required = tuple((_last(row), "_" + _last(row)) for row in own if row.min)
        self._choices = tuple(_choice(row) for row in rows if row.path.endswith("[x]"))
        self._rules = rules

    def admit(self, name: str) -> None:
        """Accept a member whose value the caller of :meth:`check` has checked."""
        self._members[name] = _pass

    def check(self, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        """Report every issue in a JSON object and in everything inside it."""
        members = self._members
        if not node:
            run.add("structure", "An object may not be empty.", place)
        for name, value in node.items():
            (members.get(name) or self._member(name))(value, node, place, run)
        for name, sibling in self._required:
            if name not in node and sibling not in node:
                run.add("required", f"'{name}' is required here.", (place, name, -1))
        for choice in self._choices:
            if choice.required or not choice.names.isdisjoint(node):
                self._check_choice(choice, node, place, run)
        for text, is_met in self._rules:
            if not is_met(node, run.resource, run.root):
                run.add("invariant", text, place)

    @staticmethod
    def _check_choice(choice: Choice, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        found = {name.lstrip("_") for name in choice.names.intersection(node)}
        if len(found) > 1:
            run.add("structure", f"Only one of {', '.join(sorted(found))} may be present.", (place, choice.name, -1))
        elif not found:
            run.add("required", f"'{choice.name}[x]' is required here.", (place, choice.name, -1))

    def _member(self, name: str) -> _values.Check:
        row, ref = self._rows.get(name, (None, None))
        if row is None:
            row, ref = self._rows.get(name[1:], (None, None)) if name[:1] == "_" else (None, None)
            if row is None or ref is None or not _has_sibling(row, ref):
                return _unknown(name)
            check = _values.sibling(_label(row, ref), row.max != "1", shape("Element").check)
        else:
            check = _compile(row, ref)
        self._members[name] = check
        return check


class _CodingShape(Shape):
    """The shape of Coding, with a cache: most resources have the same few codings.

    A coding without nested objects that is valid once is valid everywhere.
    """

    def __init__(self, rows: tuple[Element, ...], rules: tuple[Rule, ...]) -> None:
        super().__init__(rows, rules)
        self._valid: set[tuple[tuple[str, str], ...]] = set()

    def check(self, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        values = node.values()
        if any(type(value) is not str for value in values):
            super().check(node, place, run)
            return
        key = tuple(node.items())
        if key in self._valid:
            return
        before = len(run.issues)
        super().check(node, place, run)
        if len(run.issues) == before and len(self._valid) < _MAX_CACHED_CODINGS and sum(map(len, values)) < _MAX_CACHED_LENGTH:
            self._valid.add(key)


def _has_sibling(row: Element, ref: TypeRef) -> bool:
    """Whether the element may have a sibling ``_x``: primitives do, except ids, an extension's url and narrative (XML attributes)."""
    plain = ref.code == "xhtml" or row.path == "Extension.url" or row.path.endswith(".id")
    return ref.code in definitions.primitives() and not plain


def _pass(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
    """Accepts every value."""


def _unknown(name: str) -> _values.Check:
    def check(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        run.add("structure", f"{quote(name)} is not an element here.", place)

    return check


@functools.cache
def shape(path: str) -> Shape:
    """The shape of a type ("Observation"), a datatype, or a backbone element ("Observation.component"); KeyError if unknown."""
    rows = definitions.elements(path.split(".")[0])
    inner = tuple(row for row in rows if row.path.rpartition(".")[0] == path)
    rules = _rules(next(row for row in rows if row.path == path))
    shape_class = _CodingShape if path == "Coding" else Shape
    return shape_class(inner, (*rules, EXT_1) if path == "Extension" else rules)


def _value_xor_extension(node: Any, resource: Any, root: Any) -> bool:
    return ("extension" in node) != any(name.startswith(("value", "_value")) for name in node)


# The definitions repeat it on every element; it is checked once, with the datatype.
EXT_1: Final[Rule] = ("ext-1: Must have either extensions or value[x], not both", _value_xor_extension)


def _rules(row: Element) -> tuple[Rule, ...]:
    rules = ((f"{invariant.key}: {invariant.human}", rule(invariant)) for invariant in row.invariants)
    return tuple((text, is_met) for text, is_met in rules if is_met is not None)


def _last(row: Element) -> str:
    return row.path.rpartition(".")[2].removesuffix("[x]")


def _json_names(row: Element) -> list[tuple[str, TypeRef | None]]:
    if not row.path.endswith("[x]"):
        return [(_last(row), row.types[0] if row.types else None)]
    return [(_last(row) + ref.code[0].upper() + ref.code[1:], ref) for ref in row.types]


def _choice(row: Element) -> Choice:
    names = frozenset(name for name, _ in _json_names(row))
    return Choice(_last(row), names | {"_" + name for name in names}, row.min > 0)


def _label(row: Element, ref: TypeRef | None) -> str:
    return f"{_last(row)}.ofType({ref.code})" if ref and row.path.endswith("[x]") else _last(row)


def _compile(row: Element, ref: TypeRef | None) -> _values.Check:
    label, many = _label(row, ref), row.max != "1"
    if ref is not None and ref.code in definitions.primitives():
        codes = frozenset(code for found in row.codes.values() for code in found) if row.codes is not None else None
        check = _values.primitive(label, ref.code, codes, many)
    else:
        check = _values.complex_value(label, _node_check(row, ref), many)
    rules = _rules(row) if ref is None or ref.code not in ("BackboneElement", "Element") else ()
    return _with_rules(check, rules, label, many) if rules else check


def _with_rules(check: _values.Check, rules: tuple[Rule, ...], label: str, many: bool) -> _values.Check:
    """The check, followed by the invariants that the definitions put on this element and not on its type."""

    def checked(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        check(value, node, place, run)
        for index, item in enumerate(value) if many and type(value) is list else ((-1, value),):
            for text, is_met in rules:
                if not is_met(item, run.resource, run.root):
                    run.add("invariant", text, (place, label, index))

    return checked


NodeCheck = Callable[[dict[str, Any], Place, ValidationRun], None]


def _node_check(row: Element, ref: TypeRef | None) -> NodeCheck:
    if row.like:
        return shape(row.like).check
    if ref is None:
        raise LookupError(f"{row.path} has no type")
    if ref.code in ("BackboneElement", "Element"):
        return shape(row.path).check
    if ref.code == "Resource":
        return _inner_resource(contained=row.path.endswith(".contained"))
    return _values.refined(shape(ref.code).check, ref, row.codes)


def _inner_resource(*, contained: bool) -> NodeCheck:
    def check(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        check_resource(node, place, run.within(node, contained=contained))

    return check


@functools.cache
def _resource_types() -> frozenset[str]:
    return frozenset(definitions.types())


def check_resource(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
    """Check a resource by the type it names."""
    name = node.get("resourceType")
    if type(name) is not str or name not in _resource_types():
        code = "required" if name is None else "value"
        run.add(code, "'resourceType' must name a resource type of R4.", (place, "resourceType", -1))
        return
    resource_shape(name).check(node, place, run)


@functools.cache
def resource_shape(name: str) -> Shape:
    """The shape of a resource type; it accepts ``resourceType``.  Raises KeyError if R4 has no such resource type."""
    if name not in _resource_types():
        raise KeyError(name)
    compiled = shape(name)
    compiled.admit("resourceType")
    return compiled
