"""Prescriptions and statements of one medicine as one entry.

They belong together if one is based on or derived from the other, or if they name the same medicine by a coding or by a Medication.
Only what the searches gave is joined: an entry has each of them as a part of its own, with its words and its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.display.medicines import name_medicine
from fhir_server.display.texts import objects, plain
from fhir_server.portal.record.items import Item
from fhir_server.portal.record.seen import name

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A prescription or a statement.  ``is_current``: whether its list is one of what is current."""

    resource: Json
    item: Item
    included: Mapping[str, Json]
    is_current: bool


@dataclass(frozen=True, slots=True)
class Medicine:
    """A medicine and what is recorded about it, the latest first."""

    name: str
    items: tuple[Item, ...]
    is_current: bool


def join(parts: Sequence[Part]) -> list[Medicine]:
    """One entry for each medicine, the latest first.  A medicine is current if any of its parts is."""
    groups: list[tuple[set[str], list[Part]]] = []
    for part in parts:
        marks = set(_marks(part))
        alike = [group for group in groups if not marks.isdisjoint(group[0])]
        groups = [group for group in groups if group not in alike]
        groups.append((marks.union(*(group[0] for group in alike)), [*(one for group in alike for one in group[1]), part]))
    return sorted((_medicine(group) for _, group in groups), key=lambda medicine: medicine.items[0].row.when, reverse=True)


def _medicine(group: Iterable[Part]) -> Medicine:
    parts = sorted(group, key=lambda part: (part.is_current, part.item.row.when), reverse=True)
    first = parts[0]
    called = name_medicine(first.resource, first.included)
    return Medicine(called, tuple(part.item for part in parts), any(part.is_current for part in parts))


def _marks(part: Part) -> Iterator[str]:
    """What parts of one entry have in common: their names, what they refer to, and how they name the medicine."""
    resource = part.resource
    yield name(resource)
    for element in ("basedOn", "derivedFrom"):
        targets = (plain(each.get("reference")) for each in objects(resource.get(element)))
        yield from (target for target in targets if target.startswith("Medication"))
    concept = resource.get("medicationCodeableConcept")
    reference = resource.get("medicationReference")
    target = plain(reference.get("reference")) if isinstance(reference, dict) else ""
    if target and not target.startswith("#"):
        yield target
    contained = {f"#{plain(each.get('id'))}": each for each in objects(resource.get("contained"))}
    described = concept if isinstance(concept, dict) else (contained.get(target) or part.included.get(target) or {}).get("code", {})
    for coding in objects(described.get("coding")):
        if coding.get("system") and coding.get("code"):
            yield f"{coding['system']}|{coding['code']}"
