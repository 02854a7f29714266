"""Values of one kind over time: one series for each unit, drawn as a line, with a table behind it.

Only plain numbers are drawn.  ``< 5``, a text and a value of another unit stand in the table alone or in a series of their own, because
the line would say something else than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from fhir_server.display.texts import number, plain
from fhir_server.web.dates import format_date

FEWEST: Final = 2  # values of a series that is drawn
_WIDTH: Final = 600
_HEIGHT: Final = 200
_MARGIN: Final = 14


@dataclass(frozen=True, slots=True)
class Point:
    """A value: where it is drawn, and its words."""

    x: float
    y: float
    text: str
    day: str


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one unit, the oldest first.  ``low``, ``high``: the least and the greatest one, with their digits."""

    unit: str
    points: tuple[Point, ...]
    low: str
    high: str
    width: int = _WIDTH
    height: int = _HEIGHT

    @property
    def line(self) -> str:
        """The ``points`` of an SVG polyline."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


def series(observations: Iterable[Mapping[str, Any]]) -> list[Series]:
    """The series of some Observations that have values enough, by unit in the order of their first values."""
    by_unit: dict[tuple[str, str], list[tuple[date, Decimal, str, str]]] = {}
    for observation in observations:
        value = observation.get("valueQuantity")
        day = _day(observation)
        if not isinstance(value, dict) or day is None or value.get("comparator") is not None:
            continue
        if text := number(value.get("value")):
            unit = plain(value.get("unit")) or plain(value.get("code"))
            kind = (plain(value.get("code")) or unit, unit)
            by_unit.setdefault(kind, []).append((day, Decimal(text), text, format_date(_when(observation))))
    return [_drawn(unit, sorted(found, key=lambda one: one[0])) for (_, unit), found in by_unit.items() if len(found) >= FEWEST]


def _drawn(unit: str, found: list[tuple[date, Decimal, str, str]]) -> Series:
    first, last = found[0][0], found[-1][0]
    low, high = min(found, key=lambda one: one[1]), max(found, key=lambda one: one[1])
    days, span = (last - first).days or 1, float(high[1] - low[1]) or 1.0
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def point(day: date, value: Decimal, text: str, words: str) -> Point:
        x, y = width * (day - first).days / days, height * (1 - float(value - low[1]) / span)
        return Point(_MARGIN + x, _MARGIN + y, f"{text} {unit}".strip(), words)

    return Series(unit, tuple(point(*one) for one in found), low[2], high[2])


def _when(observation: Mapping[str, Any]) -> str:
    period = observation.get("effectivePeriod")
    start = period.get("start") if isinstance(period, dict) else None
    return plain(observation.get("effectiveDateTime") or observation.get("effectiveInstant") or start)


def _day(observation: Mapping[str, Any]) -> date | None:
    parts = _when(observation)[:10].split("-")
    try:
        return date.fromisoformat("-".join((*parts, "01", "01")[:3]))
    except ValueError:
        return None
