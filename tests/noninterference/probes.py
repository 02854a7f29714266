"""The values to search for: those of hidden rows and elements, those of visible ones, and similar values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fhir_server.search import index
from fhir_server.search.rows import Entry
from tests.noninterference.case_generator import Case
from tests.noninterference.oracle import FACTS
from tests.noninterference.paired_server import BASE, Write


@dataclass(frozen=True)
class Probes:
    """Search values by (type, parameter), from hidden and from visible data, and ids (Type/id) of hidden and visible rows.

    ``inner``: the (type, parameter) pairs of hidden elements inside visible rows.  ``pointers``: (type, parameter, target) of the
    references from visible rows to hidden ones.
    """

    hidden: dict[tuple[str, str], tuple[str, ...]]
    shown: dict[tuple[str, str], tuple[str, ...]]
    inner: tuple[tuple[str, str], ...]
    hidden_ids: tuple[str, ...]
    shown_ids: tuple[str, ...]
    pointers: tuple[tuple[str, str, str], ...]

    @staticmethod
    def of(case: Case) -> Probes:
        hidden = case.hidden()
        ids = dict.fromkeys(write.name for write in hidden if write.at)
        standing = case.standing()
        shown = [*standing.values(), *(write for write in FACTS if write.type != "Location")]
        inner = tuple(key for key in _values([write for write in hidden if not write.at]) if ":" not in key[1])
        return Probes(
            _values(hidden),
            _values(shown),
            inner,
            tuple(name for name in ids if name not in standing),
            tuple(write.name for write in shown),
            tuple(_pointers(hidden, standing.keys())),
        )


def _pointers(hidden: list[Write], standing: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the references in hidden elements and hidden versions of visible rows, without those to a row's own patient."""
    found = {}
    for write in hidden:
        if write.resource is not None and (not write.at or write.name in standing):
            for entry in index.entries(write.type, write.resource, BASE):
                target = str(entry.value[0]) if entry.kind == "reference" else ""
                if target and target not in standing and not target.startswith(("Patient/", "Practitioner/", "Location/")):
                    found[write.type, entry.param, target] = None
    yield from found


def _values(writes: list[Write]) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for write in writes:
        if write.resource is None:
            continue
        for entry in index.entries_with_words(write.type, write.resource, BASE):
            if "$" in entry.param:  # of a pair, whose parts have entries too
                continue
            found.setdefault((write.type, entry.param), {}).update(dict.fromkeys(spelled(entry)))
        stamp = datetime.fromtimestamp(write.at / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S") + "Z"
        if write.at:
            found.setdefault((write.type, "_lastUpdated"), {})[stamp] = None
            found.setdefault((write.type, "_id"), {})[write.id] = None
    return {key: tuple(values) for key, values in found.items()}


def spelled(entry: Entry) -> list[str]:
    """Return texts by which a search finds an entry, and texts like these."""
    value: Any = entry.value
    match entry.kind:
        case "token":
            return [f"{value[0]}|{value[1]}", str(value[1]), f"{value[0]}|"]
        case "reference":
            return [str(value[0])]
        case "string":
            return [str(value[1] or value[0]), str(value[0])[:5]]
        case "position":
            at = (round(math.degrees(math.asin(value[2])), 6), round(math.degrees(math.atan2(value[1], value[0])), 6))
            return [f"{at[0]}|{at[1]}", f"{at[0]}|{at[1]}|500|km"]
        case "words":
            return str(value[0]).split()
        case "date":
            days = [datetime.fromtimestamp(value[0] / 1e6 + shift * 86400, UTC).strftime("%Y-%m-%d") for shift in (-1, 0, 1)]
            return [*days, datetime.fromtimestamp(value[0] / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]
        case _:
            return [f"{number:g}" for number in (value[0], value[0] - 1, value[0] + 1)]
