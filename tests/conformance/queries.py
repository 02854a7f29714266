"""Questions made from the rows of a record, and what should answer them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, timedelta, timezone
from typing import Any

from tests.conformance.patient_app import KINDS, Record
from tests.conformance.reference_search import FIRST, LAST, sent, span

Asked = dict[str, str]
Row = dict[str, Any]
ZONES = (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8)))
SHIFTS = (-timedelta(days=1), timedelta(0), timedelta(days=1))


def found(record: Record, type: str, asked: Asked, **how: Any) -> list[str]:
    """The ids that a search finds, in its order."""
    return ids(record.asked(type, [(name, sent(value)) for name, value in asked.items()], **how))


def ids(rows: Iterable[Row]) -> list[str]:
    return [row["id"] for row in rows]


def meeting(record: Record, type: str, asked: Asked) -> list[str]:
    """The ids of the patient's rows that meet what is asked, as the test reads them."""
    readings = KINDS[type].readings
    return sorted(row["id"] for row in record.own(type) if all(readings[name].meets(row, value) for name, value in asked.items()))


def by_values(record: Record, type: str, names: tuple[str, ...]) -> list[tuple[Row, Asked]]:
    """Rows of the patient that have them all, with their own values for these parameters; no two ask the same."""
    readings = KINDS[type].readings
    known: dict[str, tuple[Row, Asked]] = {}
    for row in record.own(type):
        values = {name: readings[name].values(row)[:1] for name in names}
        if all(values.values()):
            known.setdefault(str(values), (row, {name: value for name, [value] in values.items()}))
    return list(known.values())


def variants(record: Record, type: str, row: Row, own: Asked) -> Iterator[Asked]:
    """What else to ask about a row: every value that finds it, one at a time, and values that should not."""
    rows = record.own(type) + record.others(type)
    for name in own:
        reading = KINDS[type].readings[name]
        here = reading.values(row)
        beside = [value for other in rows for value in reading.values(other) if not reading.meets(row, value)]
        foreign = [f"urn:elsewhere|{own[name]}", f"|{own[name]}"] if reading.kind == "token" and name != "_id" else []
        for value in [*here, *(beside[:2] if name != "patient" else ()), *foreign]:
            yield own | {name: value}


def around(record: Record, type: str, name: str, row: Row) -> Iterator[str]:
    """Instants about a day before, at and after the ends of the row's date, to the second and with an offset."""
    reading = KINDS[type].readings[name]
    for start, end in map(span, reading.elements(row)):
        for number, edge in enumerate(sorted({start, end} - {FIRST, LAST})):
            for shift, zone in zip(SHIFTS, ZONES[number:] + ZONES[:number], strict=True):
                yield (edge + shift).astimezone(zone).isoformat(timespec="seconds")


def brought(entries: list[Row]) -> set[str]:
    """What came along with the matches, as ``Type/id``."""
    rows = [entry["resource"] for entry in entries if entry["search"]["mode"] == "include"]
    return {f"{row['resourceType']}/{row['id']}" for row in rows}


def references(element: Any) -> Iterator[str]:
    """The references to other resources in a resource."""
    if isinstance(element, list):
        for item in element:
            yield from references(item)
    elif isinstance(element, dict):
        yield from [element["reference"]] if isinstance(element.get("reference"), str) else []
        for item in element.values():
            yield from references(item)
