"""Searches derived from the resources of a record, and their expected results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, timedelta, timezone
from typing import Any

from tests.conformance.patient_app import SEARCHED_TYPES, Record
from tests.conformance.reference_search import FIRST, LAST, escape, interval_of

Asked = dict[str, str]
Row = dict[str, Any]
ZONES = (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8)))
SHIFTS = (-timedelta(days=1), timedelta(0), timedelta(days=1))


def find_ids(record: Record, type: str, asked: Asked, **how: Any) -> list[str]:
    """Search and return the ids of the matches, in order."""
    return ids_of(record.search(type, [(name, escape(value)) for name, value in asked.items()], **how))


def ids_of(rows: Iterable[Row]) -> list[str]:
    return [row["id"] for row in rows]


def matching_ids(record: Record, type: str, asked: Asked) -> list[str]:
    """The expected ids: the patient's resources that match all parameters, as the test reads them."""
    readings = SEARCHED_TYPES[type].readings
    return sorted(row["id"] for row in record.own_rows(type) if all(readings[name].matches(row, value) for name, value in asked.items()))


def rows_with_values(record: Record, type: str, names: tuple[str, ...]) -> list[tuple[Row, Asked]]:
    """The patient's resources with values for all these parameters, each with its values.  Each combination appears once."""
    readings = SEARCHED_TYPES[type].readings
    known: dict[str, tuple[Row, Asked]] = {}
    for row in record.own_rows(type):
        values = {name: readings[name].values(row)[:1] for name in names}
        if all(values.values()):
            known.setdefault(str(values), (row, {name: value for name, [value] in values.items()}))
    return list(known.values())


def variants(record: Record, type: str, row: Row, own: Asked) -> Iterator[Asked]:
    """Variants of a search: with each value that matches the resource, and with values that do not match it."""
    rows = record.own_rows(type) + record.other_rows(type)
    for name in own:
        reading = SEARCHED_TYPES[type].readings[name]
        own_values = reading.values(row)
        others = [value for other in rows for value in reading.values(other) if not reading.matches(row, value)]
        foreign = [f"urn:elsewhere|{own[name]}", f"|{own[name]}"] if reading.kind == "token" and name != "_id" else []
        for value in [*own_values, *(others[:2] if name != "patient" else ()), *foreign]:
            yield own | {name: value}


def nearby_instants(record: Record, type: str, name: str, row: Row) -> Iterator[str]:
    """Instants a day before, at and a day after the bounds of the resource's date, to the second and with an offset."""
    reading = SEARCHED_TYPES[type].readings[name]
    for start, end in map(interval_of, reading.elements(row)):
        for number, edge in enumerate(sorted({start, end} - {FIRST, LAST})):
            for shift, zone in zip(SHIFTS, ZONES[number:] + ZONES[:number], strict=True):
                yield (edge + shift).astimezone(zone).isoformat(timespec="seconds")


def included_names(entries: list[Row]) -> set[str]:
    """The included resources, as ``Type/id``."""
    rows = [entry["resource"] for entry in entries if entry["search"]["mode"] == "include"]
    return {f"{row['resourceType']}/{row['id']}" for row in rows}


def references(element: Any) -> Iterator[str]:
    """Yield the references in a resource."""
    if isinstance(element, list):
        for item in element:
            yield from references(item)
    elif isinstance(element, dict):
        yield from [element["reference"]] if isinstance(element.get("reference"), str) else []
        for item in element.values():
            yield from references(item)
