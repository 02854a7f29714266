"""The items of an element in a JSON object, and their comparison with fixed values and patterns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from fhir_server.resources import definitions


class Item(NamedTuple):
    """A value of an element.

    ``value``  the JSON value; of a primitive without one, None
    ``extra``  the object with a primitive's id and extensions, or None
    ``kind``   the type that the name of a choice says, or a resource's type; otherwise ""
    ``name``, ``position``  its place: the JSON name, and the index in an array or -1
    """

    value: Any
    extra: Any
    kind: str
    name: str
    position: int

    @property
    def node(self) -> Any:
        """What FHIRPath sees: the value, or the object of a primitive without one."""
        return self.extra if self.value is None else self.value

    @property
    def members(self) -> Mapping[str, Any]:
        """The object that holds its child elements."""
        found = self.value if isinstance(self.value, dict) else self.extra
        return found if isinstance(found, dict) else {}


def items_of(holder: Mapping[str, Any], name: str) -> list[Item]:
    """The items of an element, by its name in a definition (``value[x]`` for a choice)."""
    if not name.endswith("[x]"):
        return _items(holder, name, "")
    base = name[:-3]
    names = dict.fromkeys(key.lstrip("_") for key in holder if key.lstrip("_").startswith(base))
    kinds = {key: kind for key in names if (kind := _choice_kinds().get(key[len(base) :])) is not None}
    return [item for key, kind in kinds.items() for item in _items(holder, key, kind)]


def root_item(resource: Mapping[str, Any]) -> Item:
    """A resource as an item."""
    return Item(resource, None, str(resource.get("resourceType")), "", -1)


def _items(holder: Mapping[str, Any], name: str, kind: str) -> list[Item]:
    value, extra = holder.get(name), holder.get("_" + name)
    if not isinstance(value, list) and not isinstance(extra, list):
        return [] if value is None and extra is None else [_item(value, extra, kind, name, -1)]
    values, extras = value if isinstance(value, list) else [], extra if isinstance(extra, list) else []
    return [
        _item(values[at] if at < len(values) else None, extras[at] if at < len(extras) else None, kind, name, at)
        for at in range(max(len(values), len(extras)))
    ]


def _item(value: Any, extra: Any, kind: str, name: str, index: int) -> Item:
    own = value.get("resourceType") if isinstance(value, dict) else None
    return Item(value, extra, str(own) if own else kind, name, index)


@cache
def _choice_kinds() -> Mapping[str, str]:
    return {name[0].upper() + name[1:]: name for name in (*definitions.datatypes(), *definitions.primitives())}


def equals(fixed: Any, value: Any) -> bool:
    """Whether a value is the fixed one, with nothing more (http://hl7.org/fhir/R4/elementdefinition-definitions.html#fixed)."""
    if isinstance(fixed, bool) or isinstance(value, bool):
        return fixed is value
    if isinstance(fixed, dict):
        return isinstance(value, dict) and fixed.keys() == value.keys() and all(equals(part, value[name]) for name, part in fixed.items())
    if isinstance(fixed, list):
        return isinstance(value, list) and len(fixed) == len(value) and all(map(equals, fixed, value))
    return bool(fixed == value)


def matches(pattern: Any, value: Any) -> bool:
    """Whether a value has all that the pattern has; each item of an array matches some item.

    http://hl7.org/fhir/R4/elementdefinition-definitions.html#pattern
    """
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(name in value and matches(part, value[name]) for name, part in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(matches(part, one) for one in value) for part in pattern)
    return equals(pattern, value)
