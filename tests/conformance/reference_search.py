"""An independent implementation of search matching, written from http://hl7.org/fhir/R4/search.html.

It uses none of the server's code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
NAME_PARTS = ("text", "family", "given", "prefix", "suffix")
ADDRESS_PARTS = ("text", "line", "city", "district", "state", "postalCode", "country")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a search parameter reads a resource: its type (``kind``) and the paths of its elements, separated by dots."""

    kind: str
    paths: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Reading:
        """Parse ``kind path path ...``."""
        kind, *paths = text.split()
        return Reading(kind, tuple(paths))

    def values(self, resource: Mapping[str, Any]) -> list[str]:
        """The values that find this resource: codes with and without system, each part of a name."""
        return list(dict.fromkeys(value for element in self.elements(resource) for value in _VALUES[self.kind](element)))

    def matches(self, resource: Mapping[str, Any], value: str) -> bool:
        """Whether an element matches ``value`` (one value, not escaped)."""
        return any(_MATCHERS[self.kind](element, value) for element in self.elements(resource))

    def elements(self, resource: Mapping[str, Any]) -> list[Any]:
        """The resource's elements at the paths."""
        return [element for path in self.paths for element in _at(resource, path.split("."))]


def escape(value: str) -> str:
    """Escape a value for a query, so that its commas do not separate values."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _at(value: Any, path: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _at(item, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _at(value[path[0]], path[1:])


# tokens


def _codings(element: Any) -> list[tuple[str, str]]:
    """(system, code) of a CodeableConcept, a Coding, an Identifier or a code."""
    if isinstance(element, str):
        return [("", element)]
    found = element.get("coding", [element])
    return [(one.get("system", ""), one.get("code") or one["value"]) for one in found]


def _tokens(element: Any) -> list[str]:
    found = _codings(element)
    return [code for _, code in found] + [f"{system}|{code}" for system, code in found if system]


def _token_matches(element: Any, value: str) -> bool:
    system, bar, code = value.rpartition("|")
    return any(code == own_code and (not bar or system == own_system) for own_system, own_code in _codings(element))


# strings


def _parts(element: Any) -> list[str]:
    if isinstance(element, str):
        return [element]
    parts = [element.get(name, []) for name in dict.fromkeys(NAME_PARTS + ADDRESS_PARTS)]
    return [text for part in parts for text in ([part] if isinstance(part, str) else part)]


def _plain(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char)).lower()


def _string_matches(element: Any, value: str) -> bool:
    return any(_plain(part).startswith(_plain(value)) for part in _parts(element))


# references


def _reference_matches(element: Any, value: str) -> bool:
    whole: str = element["reference"]
    return value == whole or value.endswith("/" + whole) or value == whole.partition("/")[2]


def _canonical_matches(element: str, value: str) -> bool:
    return value in (element, element.partition("|")[0])


# dates


def date_interval(text: str) -> tuple[datetime, datetime]:
    """The first instant of a date or dateTime, and the first instant after it."""
    if "T" in text:
        start = datetime.fromisoformat(text)
        return start, start + (timedelta(milliseconds=1) if "." in text else timedelta(seconds=1))
    year, month, day = (*map(int, re.findall(r"\d+", text)), 0, 0)[:3]
    if day:
        first = date(year, month, day)
        after = first + timedelta(days=1)
    elif month:
        first, after = date(year, month, 1), date(year + month // 12, month % 12 + 1, 1)
    else:
        first, after = date(year, 1, 1), date(year + 1, 1, 1)
    return _midnight(first), _midnight(after)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def interval_of(element: Any) -> tuple[datetime, datetime]:
    """The same for a date or a Period, which can be open at either end."""
    if isinstance(element, str):
        return date_interval(element)
    start, end = element.get("start"), element.get("end")
    return date_interval(start)[0] if start else FIRST, date_interval(end)[1] if end else LAST


def _dates(element: Any) -> list[str]:
    if isinstance(element, str):
        return [element]
    start, end = interval_of(element)
    day = timedelta(days=1)
    return [f"gt{(start - day).isoformat()}" if start != FIRST else f"lt{(end + day).isoformat()}"]


def _date_matches(element: Any, value: str) -> bool:
    prefix, text = (value[:2], value[2:]) if value[0].isalpha() else ("eq", value)
    (low, high), (start, end) = date_interval(text), interval_of(element)
    inside = low <= start and end <= high
    return {"eq": inside, "gt": end > high, "lt": start < low, "ge": inside or end > high, "le": inside or start < low}[prefix]


_VALUES = {
    "token": _tokens,
    "string": _parts,
    "reference": lambda element: [element["reference"].partition("/")[2], element["reference"]],
    "canonical": lambda element: [element, element.partition("|")[0]],
    "date": _dates,
}
_MATCHERS = {
    "token": _token_matches,
    "string": _string_matches,
    "reference": _reference_matches,
    "canonical": _canonical_matches,
    "date": _date_matches,
}
