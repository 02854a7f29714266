"""A profile as a tree of elements: what it demands beyond the type that it constrains (http://hl7.org/fhir/R4/elementdefinition.html).

The tree is made of the snapshot.  Without one, it is made of the differential, and the resource must meet the base definition, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server.resources import definitions, fhirpath

CORE: Final = "http://hl7.org/fhir/StructureDefinition/"
ABSENT: Final = object()
_ABSTRACT: Final = frozenset({"Resource", "DomainResource", "Element", "BackboneElement", "Extension"})
_MAX_VALUE_SET: Final = CORE + "elementdefinition-maxValueSet"


@dataclass(frozen=True, slots=True)
class TypeOption:
    """One type that an element may have; ``profiles`` and ``targets`` are canonical URLs."""

    code: str
    profiles: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binding:
    """The value set of an element.  ``strict``: each code must be in it, otherwise it should be."""

    value_set: str
    strict: bool


@dataclass(frozen=True, slots=True)
class ProfileRule:
    """An invariant of a profile: key and wording, whether it is an error, and the predicate (None: this server cannot evaluate it)."""

    text: str
    is_error: bool
    predicate: Callable[[Any, Any, Any], bool] | None


@dataclass(frozen=True, slots=True)
class Slicing:
    """How the items of an element are told apart: (type, path) of each discriminator, and the rules for other items."""

    discriminators: tuple[tuple[str, str], ...]
    rules: str = "open"
    ordered: bool = False


@dataclass(slots=True)
class ElementNode:
    """An element of a profile, or a slice of it."""

    name: str
    min: int = 0
    max: float = math.inf
    types: tuple[TypeOption, ...] = ()
    fixed: Any = ABSENT
    pattern: Any = ABSENT
    limits: Mapping[str, Any] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    rules: tuple[ProfileRule, ...] = ()
    slicing: Slicing | None = None
    like: str = ""
    children: dict[str, ElementNode] = field(default_factory=dict)
    slices: dict[str, ElementNode] = field(default_factory=dict)

    @property
    def is_choice(self) -> bool:
        """Whether it stands for ``name[x]``."""
        return self.name.endswith("[x]")


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile.  ``base``: the canonical URL of the definition that must be met, too; "" if the tree has everything."""

    url: str
    version: str
    type: str
    package: str
    root: ElementNode
    base: str = ""


def is_core(url: str) -> bool:
    """Whether the URL is that of a type of R4 itself."""
    name = url.partition("|")[0].removeprefix(CORE)
    names = (definitions.types(), definitions.datatypes(), definitions.primitives(), _ABSTRACT)
    return name != url and any(name in some for some in names)


def profile_of(definition: Mapping[str, Any], package: str = "") -> Profile:
    """The profile of a valid StructureDefinition.  Raises ValueError, with the reason, for one that no resource can be checked against."""
    rows = definition.get("snapshot", {}).get("element") or definition.get("differential", {}).get("element")
    if not rows or definition.get("derivation") != "constraint":
        raise ValueError("it has no elements, or is no constraint of a type")
    base = "" if "snapshot" in definition else str(definition.get("baseDefinition", ""))
    root = ElementNode(str(definition["type"]))
    for row in rows:
        _put(root, row)
    _settle(root)
    return Profile(str(definition["url"]), str(definition.get("version", "")), root.name, package, root, "" if is_core(base) else base)


def _put(root: ElementNode, row: Mapping[str, Any]) -> None:
    """Put an element at its place, which its id names: ``Patient.extension:race.url``."""
    if "sliceName" in row and "id" not in row:
        raise ValueError(f"the slice {row['sliceName']!r} has no id")
    node = root
    for step in str(row.get("id") or row["path"]).split(".")[1:]:
        name, _, slice = step.partition(":")
        node = node.children.setdefault(name, ElementNode(name))
        parts = slice.split("/") if slice else []
        for end in range(1, len(parts) + 1):  # a slice of a slice is named outer/inner
            node = node.slices.setdefault("/".join(parts[:end]), ElementNode(name))
    _fill(node, row)


def _fill(node: ElementNode, row: Mapping[str, Any]) -> None:
    node.min = int(row.get("min", 0))
    node.max = math.inf if row.get("max", "*") == "*" else int(row["max"])
    node.types = tuple(_type(one) for one in row.get("type", ()))
    node.fixed = _value(row, "fixed")
    node.pattern = _value(row, "pattern")
    node.limits = {kind: _value(row, kind) for kind in ("minValue", "maxValue", "maxLength") if _value(row, kind) is not ABSENT}
    node.bindings = _bindings(row.get("binding", {}))
    node.rules = tuple(_rule(one) for one in row.get("constraint", ()) if not is_core(str(one.get("source", ""))))
    node.like = str(row.get("contentReference", "")).partition("#")[2]
    if (slicing := row.get("slicing")) is not None:
        pairs = tuple((str(one["type"]), str(one["path"])) for one in slicing.get("discriminator", ()))
        node.slicing = Slicing(pairs, slicing["rules"], slicing.get("ordered", False))


def _type(row: Mapping[str, Any]) -> TypeOption:
    code = str(row["code"])
    code = "string" if "fhirpath/System" in code else code
    profiles = tuple(url for url in row.get("profile", ()) if not is_core(url))
    return TypeOption(code, profiles, tuple(row.get("targetProfile", ())))


def _value(row: Mapping[str, Any], kind: str) -> Any:
    """The value of ``fixed[x]`` and the like; ABSENT without one."""
    return next((value for name, value in row.items() if name.startswith(kind)), ABSENT)


def _bindings(row: Mapping[str, Any]) -> tuple[Binding, ...]:
    found = []
    if row.get("strength") in ("required", "extensible") and "valueSet" in row:
        found.append(Binding(str(row["valueSet"]), row["strength"] == "required"))
    found += [Binding(str(one["valueCanonical"]), True) for one in row.get("extension", ()) if one.get("url") == _MAX_VALUE_SET]
    return tuple(found)


def _rule(row: Mapping[str, Any]) -> ProfileRule:
    try:
        predicate = fhirpath.predicate(str(row["expression"]))
    except (KeyError, IndexError, ValueError):
        predicate = None
    return ProfileRule(f"{row['key']}: {row['human']}", row["severity"] == "error", predicate)


def _settle(node: ElementNode) -> None:
    """Give the slices of extensions and of choices the discriminator that R4 gives them.  Raises ValueError for others without one."""
    if node.slices and node.slicing is None:
        if node.name in ("extension", "modifierExtension"):
            node.slicing = Slicing((("value", "url"),))
        elif node.is_choice:
            node.slicing = Slicing((("type", "$this"),))
        else:
            raise ValueError(f"the slices of {node.name!r} have no discriminator; a snapshot is needed")
    for inner in (*node.children.values(), *node.slices.values()):
        _settle(inner)
