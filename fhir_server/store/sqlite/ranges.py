"""Ranges of rows to search, and the access paths that read them (:mod:`~fhir_server.store.sqlite.planner`)."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import apsw

from fhir_server.store.sqlite.schema import MAX_RID, PATIENT_BITS
from fhir_server.store.sqlite.translate import TRUE, Sql, both


@dataclass(frozen=True, slots=True)
class AccessPath:
    """``SELECT <alias>.rid FROM`` followed by ``front`` and ``body`` is a statement.

    ``front``: tables with several ranges of rows to search in turn, or "".  ``is_distinct``: it yields no row twice.
    ``is_broad``: nothing limits it to few rows, so reading all of them is slow.  ``patient``: the number of the one
    patient whose rows it yields; None for rows of several or all.
    """

    alias: str
    front: str
    body: str
    args: tuple[Any, ...]
    is_distinct: bool = True
    is_broad: bool = False
    patient: int | None = None

    def select(self, *, distinct: bool = True) -> str:
        """Return the statement that yields the rids; without ``distinct`` it may yield one twice."""
        return f"SELECT {self._distinct if distinct else ''}{self.alias}.rid AS rid FROM {self.front}{self.body}"

    def select_first(self, limit: int, bits: int) -> Sql:
        """Return the statement that yields the first ``limit`` rids in the order of their ``bits``.

        Of several ranges it reads only the first ``limit`` rows of each.
        """
        if not self.front:
            order = f"{self.alias}.rid" if self.patient or bits == MAX_RID else f"{self.alias}.rid & {bits}"
            return f"{self.select()} ORDER BY {order} LIMIT ?", (*self.args, limit)
        each = f"SELECT {self._distinct}{self.alias}.rid FROM {self.body} ORDER BY {self.alias}.rid LIMIT ?"
        text = f"SELECT c.rid AS rid FROM {self.front}res c WHERE c.rid IN ({each}) ORDER BY c.rid & {bits} LIMIT ?"
        return text, (*self.args, limit, limit)

    @property
    def _distinct(self) -> str:
        return "" if self.is_distinct else "DISTINCT "


@dataclass(frozen=True, slots=True)
class RidRanges:
    """The rows to search: of these bands, ranges of ``width`` from each of ``starts`` (None: all), with a rid greater than ``floor``.

    ``bands`` None: of all bands of the type.
    """

    bands: array[int] | None
    starts: array[int] | None
    width: int
    floor: int

    @property
    def patient(self) -> int | None:
        """The number of the patient if all these rows belong to one patient as the first, else None."""
        return self.starts[0] >> PATIENT_BITS if self.starts is not None and len(self.starts) == 1 and self.width else None

    def with_bands(self, bands: array[int] | None) -> RidRanges:
        """Return the same ranges in these bands."""
        return RidRanges(bands, self.starts, self.width, self.floor)

    def on(self, alias: str, *, has_band: bool = True) -> tuple[str, tuple[Any, ...], Sql]:
        """Return tables to put in front, their arguments, and the condition on ``alias``.

        The condition has two comparisons because for a joined table SQLite uses only the lower end of a BETWEEN.
        """
        fronts: list[str] = []
        front_args: list[Any] = []
        of_band: Sql = TRUE
        if has_band and self.bands is not None:
            if len(self.bands) == 1:
                of_band = f"{alias}.band = ?", (self.bands[0],)
            else:
                fronts.append("carray(?) b CROSS JOIN ")
                front_args.append(apsw.carray(self.bands))
                of_band = f"{alias}.band = b.value", ()
        if self.starts is None:
            within: Sql = f"{alias}.rid >= ? AND {alias}.rid <= ?", (self.floor + 1, MAX_RID)
        elif len(self.starts) == 1:
            start = self.starts[0]
            within = f"{alias}.rid >= ? AND {alias}.rid <= ?", (max(start, self.floor + 1), start + self.width)
        else:
            fronts.append("carray(?) s CROSS JOIN ")
            front_args.append(apsw.carray(self.starts))
            within = f"{alias}.rid >= max(s.value, ?) AND {alias}.rid <= s.value + ?", (self.floor + 1, self.width)
        return "".join(fronts), tuple(front_args), both(of_band, within)


def path_by_rows(wanted: Sql, ranges: RidRanges, type: int | None = None) -> AccessPath:
    """Return the path that examines every row in these ranges; ``type``: the ranges hold all bands of this type."""
    if type is not None and ranges.starts is None:
        text, args = both(("r.type = ? AND r.rid >= ?", (type, ranges.floor + 1)), wanted)
        return AccessPath("r", "", f"res r INDEXED BY res_type WHERE {text}", args, is_broad=True)
    front, front_args, within = ranges.on("r")
    text, args = both(within, wanted)
    body = f"res r INDEXED BY res_scan WHERE {text}"
    return AccessPath("r", front, body, (*front_args, *args), is_broad=ranges.starts is None, patient=ranges.patient)


def ranges_after(floor: int, bands: array[int]) -> RidRanges:
    """Return the range of all rows of these bands with a greater rid."""
    return RidRanges(bands, None, 0, floor)
