"""The days that a person asks for on a page of a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from fhir_server.web.dates import format_day

_NO_DATE: Final = "Enter the days as dates, such as 2026-11-21."
_BACKWARDS: Final = "The last day is before the first day. Enter the earlier day first."


class PeriodError(Exception):
    """The days of a form are none.  ``str()``: what to tell the person."""


@dataclass(frozen=True, slots=True)
class Period:
    """The days that a person asks for; None: no first or no last one."""

    first: date | None
    last: date | None

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Period:
        """The period of a form.  Raises PeriodError."""
        try:
            first, last = (date.fromisoformat(form[name]) if form.get(name) else None for name in ("from", "to"))
        except ValueError:
            raise PeriodError(_NO_DATE) from None
        if first and last and last < first:
            raise PeriodError(_BACKWARDS)
        return cls(first, last)

    @property
    def is_bounded(self) -> bool:
        return self.first is not None or self.last is not None

    def bounds(self, first: str, last: str, *prefixes: str) -> list[tuple[str, str]]:
        """Search or operation parameters with these names for the days that there are, their values after the prefixes."""
        days = zip((first, last), prefixes or ("", ""), (self.first, self.last), strict=True)
        return [(name, prefix + day.isoformat()) for name, prefix, day in days if day]

    @property
    def words(self) -> str:
        """What of a record is in the period."""
        if not self.is_bounded:
            return "The complete record"
        said = (("from", self.first), ("to", self.last))
        return f"What is dated {' '.join(f'{word} {format_day(day)}' for word, day in said if day)}, and what has no date"
