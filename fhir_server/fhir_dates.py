"""Reads the text of FHIR's ``date``, ``dateTime`` and ``instant`` (http://hl7.org/fhir/R4/datatypes.html#dateTime)."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from typing import Final, NamedTuple

_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))?)?)?)?",
    re.ASCII,
)


class FhirDate(NamedTuple):
    """The parts of a date as written; None for parts that are absent.

    ``fraction`` holds the digits after the decimal point of the second, ``zone`` is ``Z`` or an offset such as ``-05:00``.
    The numbers may name a day or a time that does not exist.
    """

    year: int
    month: int | None
    day: int | None
    hour: int | None
    minute: int | None
    second: int | None
    fraction: str
    zone: str | None

    def days(self) -> tuple[date, date]:
        """The first and the last day of the year, month or day.  Raises ValueError if there is no such month or day."""
        if self.month is None:
            return date(self.year, 1, 1), date(self.year, 12, 31)
        first = date(self.year, self.month, 1 if self.day is None else self.day)
        return first, first if self.day is not None else first.replace(day=monthrange(self.year, self.month)[1])

    def offset(self) -> int:
        """Minutes that the zone is ahead of UTC; 0 without a zone."""
        if self.zone is None or self.zone == "Z":
            return 0
        minutes = int(self.zone[1:3]) * 60 + int(self.zone[4:])
        return -minutes if self.zone[0] == "-" else minutes


def parse(text: str) -> FhirDate | None:
    """The parts of ``yyyy``, ``yyyy-mm``, ``yyyy-mm-dd`` or ``yyyy-mm-ddThh:mm[:ss[.fraction]][zone]``; None for any other text.

    More lenient than FHIR: a time may lack its seconds and its zone, as R4 permits in search parameters.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    return FhirDate(int(year), _number(month), _number(day), _number(hour), _number(minute), _number(second), fraction or "", zone)


def _number(digits: str | None) -> int | None:
    return int(digits) if digits is not None else None
