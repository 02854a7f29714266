"""An independent reading of a resource: what a search parameter finds in it, and whether that meets what was asked.

Written from http://hl7.org/fhir/R4/search.html alone, and from none of the server's own code.
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
    """How a parameter reads a resource: its ``kind`` and the elements it stands for, with dots below one another."""

    kind: str
    paths: tuple[str, ...]

    @staticmethod
    def of(text: str) -> Reading:
        """From ``kind path path ...``."""
        kind, *paths = text.split()
        return Reading(kind, tuple(paths))

    def values(self, resource: Mapping[str, Any]) -> list[str]:
        """What to ask for to find this resource: codes both with and without their system, each part of a name."""
        return list(dict.fromkeys(value for element in self.elements(resource) for value in _VALUES[self.kind](element)))

    def meets(self, resource: Mapping[str, Any], asked: str) -> bool:
        """Whether some value found meets ``asked`` (one value, not escaped)."""
        return any(_MEETS[self.kind](element, asked) for element in self.elements(resource))

    def elements(self, resource: Mapping[str, Any]) -> list[Any]:
        """What the resource has at these places."""
        return [element for path in self.paths for element in _at(resource, path.split("."))]


def sent(value: str) -> str:
    """A value as it stands in a query: the commas in it are no list."""
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


def _token_meets(element: Any, asked: str) -> bool:
    system, bar, code = asked.rpartition("|")
    return any(code == own_code and (not bar or system == own_system) for own_system, own_code in _codings(element))


# strings


def _parts(element: Any) -> list[str]:
    if isinstance(element, str):
        return [element]
    parts = [element.get(name, []) for name in dict.fromkeys(NAME_PARTS + ADDRESS_PARTS)]
    return [text for part in parts for text in ([part] if isinstance(part, str) else part)]


def _plain(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char)).lower()


def _string_meets(element: Any, asked: str) -> bool:
    return any(_plain(part).startswith(_plain(asked)) for part in _parts(element))


# references


def _reference_meets(element: Any, asked: str) -> bool:
    whole: str = element["reference"]
    return asked == whole or asked.endswith("/" + whole) or asked == whole.partition("/")[2]


def _canonical_meets(element: str, asked: str) -> bool:
    return asked in (element, element.partition("|")[0])


# dates


def interval(text: str) -> tuple[datetime, datetime]:
    """First instant of a date or dateTime, and the first after it."""
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


def span(element: Any) -> tuple[datetime, datetime]:
    """The same of a date or a Period, which may be open at either end."""
    if isinstance(element, str):
        return interval(element)
    start, end = element.get("start"), element.get("end")
    return interval(start)[0] if start else FIRST, interval(end)[1] if end else LAST


def _dates(element: Any) -> list[str]:
    if isinstance(element, str):
        return [element]
    start, end = span(element)
    day = timedelta(days=1)
    return [f"gt{(start - day).isoformat()}" if start != FIRST else f"lt{(end + day).isoformat()}"]


def _date_meets(element: Any, asked: str) -> bool:
    prefix, text = (asked[:2], asked[2:]) if asked[0].isalpha() else ("eq", asked)
    (low, high), (start, end) = interval(text), span(element)
    inside = low <= start and end <= high
    return {"eq": inside, "gt": end > high, "lt": start < low, "ge": inside or end > high, "le": inside or start < low}[prefix]


_VALUES = {
    "token": _tokens,
    "string": _parts,
    "reference": lambda element: [element["reference"].partition("/")[2], element["reference"]],
    "canonical": lambda element: [element, element.partition("|")[0]],
    "date": _dates,
}
_MEETS = {
    "token": _token_meets,
    "string": _string_meets,
    "reference": _reference_meets,
    "canonical": _canonical_meets,
    "date": _date_meets,
}
