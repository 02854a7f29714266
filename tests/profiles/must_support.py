"""Which must-support elements of a profile some resources have, and which none of them has.

US Core marks elements by ``mustSupport``, and those that USCDI adds by an extension (https://hl7.org/fhir/us/core/must-support.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fhir_server.profiles.items import Item, equals, items_of, matches, root_item
from fhir_server.profiles.slices import codings_of

Json = dict[str, Any]
USCDI: Final = "http://hl7.org/fhir/us/core/StructureDefinition/uscdi-requirement"


def missing(profile: Json, rows: Iterable[Json], value_sets: Mapping[str, Json]) -> set[str]:
    """The ids of the must-support elements of a profile, without the type's name, that none of the resources has."""
    elements = profile["snapshot"]["element"]
    by_id = {one["id"]: one for one in elements}
    roots = [root_item(row) for row in rows]
    wanted = [one["id"] for one in elements if one.get("mustSupport") or any(x["url"] == USCDI for x in one.get("extension", ()))]
    return {id.partition(".")[2] for id in wanted if not any(_found(root, id, by_id, value_sets) for root in roots)}


def _found(root: Item, id: str, by_id: Mapping[str, Json], value_sets: Mapping[str, Json]) -> bool:
    items, steps = [root], id.split(".")
    for end in range(2, len(steps) + 1):
        name, _, slice = steps[end - 1].partition(":")
        items = [inner for item in items for inner in items_of(item.members, name)]
        if slice:
            prefix = ".".join(steps[:end])
            items = [item for item in items if _is_of_slice(item, prefix, by_id, value_sets)]
    return bool(items)


def _is_of_slice(item: Item, prefix: str, by_id: Mapping[str, Json], value_sets: Mapping[str, Json]) -> bool:
    """Whether an item has the type, the extension's URL, the codes and the fixed values that the slice demands."""
    own = by_id.get(prefix, {})
    types = own.get("type", ())
    if item.kind and types and item.kind not in {one["code"] for one in types}:
        return False
    urls = [url.partition("|")[0] for one in types if one["code"] == "Extension" for url in one.get("profile", ())]
    if urls:
        return item.members.get("url") in urls
    binding = own.get("binding", {})
    if binding.get("strength") == "required" and not _has_code(item, value_sets.get(binding["valueSet"].partition("|")[0])):
        return False
    return all(_has(item, path, kind, value) for path, kind, value in _demands(prefix, by_id))


def _demands(prefix: str, by_id: Mapping[str, Json]) -> Iterator[tuple[list[str], str, Any]]:
    """The fixed values and patterns at a slice and below it, by their place below it."""
    for id, element in by_id.items():
        if id == prefix or id.startswith(prefix + "."):
            for name, value in element.items():
                if name.startswith(("fixed", "pattern")):
                    yield id[len(prefix) + 1 :].split(".") if id != prefix else [], name[:5], value


def _has(item: Item, path: list[str], kind: str, value: Any) -> bool:
    if not path:
        return equals(value, item.value) if kind == "fixed" else matches(value, item.value)
    name, _, _ = path[0].partition(":")
    inner = items_of(item.members, name)
    return not inner or any(_has(one, path[1:], kind, value) for one in inner)


def _has_code(item: Item, value_set: Json | None) -> bool:
    """Whether the item has a code of the value set, as far as the package lists its codes."""
    if value_set is None:
        return True
    return any(_is_included(system, code, one) for system, code in codings_of(item.value) for one in value_set["compose"]["include"])


def _is_included(system: str, code: str, include: Json) -> bool:
    listed = [one["code"] for one in include.get("concept", ())]
    return system == include.get("system") and (not listed or code in listed)
