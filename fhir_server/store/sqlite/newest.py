"""The newest rows of a patient: reads the index of dates in its own order, so that a page does not cost what the record costs.

``dat_newest`` has one range for each (search parameter, patient, band).  The first rows of each range that meet the search are
candidates; :mod:`~fhir_server.store.sqlite.sorting` sorts these alone.  Rows of bands that the caller does not see are not touched.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import apsw

from fhir_server.search.visibility import VisibilityClause
from fhir_server.store import conditions
from fhir_server.store.sqlite import planner
from fhir_server.store.sqlite.ranges import AccessPath
from fhir_server.store.sqlite.translate import FALSE, TRUE, Sql, both, class_admitted, of_row, parameter_number

if TYPE_CHECKING:
    from fhir_server.store.sqlite.sorting import SortedQuery

FEW: Final = 250  # so many rows are sorted faster than their newest are found
_MAX_RANGES: Final = 64
_RANGES: Final = (
    "SELECT p.value, b.value FROM carray(?) p CROSS JOIN carray(?) b WHERE EXISTS"
    " (SELECT 1 FROM dat x INDEXED BY dat_newest WHERE x.param = ? AND x.rid >> 32 = p.value AND x.band = b.value) LIMIT ?"
)
_NOT_GREATER: Final = "NOT EXISTS (SELECT 1 FROM {} WHERE {} AND y.hi > x.hi)"
_AFTER: Final = "x.hi <= ? AND (x.hi < ? OR x.rid & {} > ?)"


def few_or_newest(query: SortedQuery, paths: tuple[AccessPath, ...], clauses: Sequence[VisibilityClause]) -> tuple[AccessPath, ...]:
    """Return paths to the first rows of a search that sorts by one date, the newest first; or ``paths`` if there is no shorter way.

    All ``clauses`` have the same classes, and the search does not continue after a row without a date.
    """
    key = query.sort[0]
    number = parameter_number(query.translator.type, key.param, key.kind, query.translator.names)
    patients = [conditions.narrowest_patients(conditions.needed_conditions(query.where, clause), clause)[1] for clause in clauses]
    if number is None or not paths or None in patients:
        return paths
    few = _first(query, paths)
    if len(few) <= FEW:
        return _paths(set(few), TRUE)
    dated: set[int] = set()
    singles: list[AccessPath] = []
    for clause, of_clause in zip(clauses, patients, strict=True):
        found = _of_clause(query, clause, of_clause or frozenset(), number)
        if found is None:
            return paths
        dated |= found[0]
        singles += found[1]
    return (*_paths(dated, TRUE), *singles) if len(dated) >= query.limit else paths


def _first(query: SortedQuery, paths: tuple[AccessPath, ...]) -> list[int]:
    """Return the rids of all rows, some perhaps twice, if they are few; else of some more."""
    text = " UNION ALL ".join([path.select(distinct=False) for path in paths])
    args = tuple([arg for path in paths for arg in path.args])
    return [rid for (rid,) in query.reader.rows(f"{text} LIMIT ?", (*args, FEW + 1))]


def _of_clause(
    query: SortedQuery, clause: VisibilityClause, patients: frozenset[str], number: int
) -> tuple[set[int], tuple[AccessPath, ...]] | None:
    """Return the newest rows in the ranges of these patients, and paths to rows outside of these; None for too many ranges."""
    numbers, bands = query.translator.names.patients(patients), query.translator.admitted_bands(clause)
    in_bands = bands.open if clause.released_only else bands.both
    ranges = (
        query.reader.rows(_RANGES, (apsw.carray(numbers), apsw.carray(in_bands), number, _MAX_RANGES + 1)) if numbers and in_bands else []
    )
    if len(ranges) > _MAX_RANGES:
        return None
    wanted = both(query.translator.condition(query.where, clause.classes), query.translator.covers(clause, query.visibility.now))
    newest: set[int] = set()
    if wanted != FALSE:
        text, args = _newest_in_range(query, clause, number, wanted)
        for patient, band in ranges:
            newest.update([rid for rid, _ in query.reader.rows(text, (number, patient, band, *args))])
    singles = planner.single_rids(clause, numbers, bands, query.visibility.now, query.reader)
    return newest, _paths(singles, both(("r.type = ?", (query.translator.type_number,)), wanted))


def _newest_in_range(query: SortedQuery, clause: VisibilityClause, number: int, wanted: Sql) -> Sql:
    """Return the statement for the first rows of one range, each by its greatest date that the clause admits."""
    admitted = class_admitted("x", clause.classes)
    same_row, args = both(("y.rid = x.rid AND y.param = ?", (number,)), class_admitted("y", clause.classes))
    other = _NOT_GREATER.format(of_row("dat", "y"), same_row), args
    text, args = both(_after(query), admitted, ("r.rid = x.rid", ()), wanted, other)
    sql = (
        "SELECT DISTINCT x.rid, x.hi FROM dat x INDEXED BY dat_newest CROSS JOIN res r"
        f" WHERE x.param = ? AND x.rid >> 32 = ? AND x.band = ? AND {text} ORDER BY x.hi DESC, x.rid LIMIT ?"
    )
    return sql, (*args, query.limit)


def _after(query: SortedQuery) -> Sql:
    if query.after is None:
        return TRUE
    value: Any = query.after.keys[0]
    return _AFTER.format(planner.place_bits(query.visibility)), (value, value, query.place)


def _paths(rids: set[int], wanted: Sql) -> tuple[AccessPath, ...]:
    return (planner.path_by_rids(array("q", sorted(rids)), wanted),) if rids else ()
