"""Reads the index entries of the rows that a search finds, without their bodies."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from typing import Protocol

import apsw

from fhir_server.search.filters import Filter
from fhir_server.search.rows import Entry, RowEntries
from fhir_server.search.visibility import Visibility
from fhir_server.store.conditions import refers_to
from fhir_server.store.sqlite import planner
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.rows import TABLES, decode_value
from fhir_server.store.sqlite.sorting import union
from fhir_server.store.sqlite.translate import FilterTranslator, class_admitted, of_row, parameter_number


class SnapshotReader(planner.RowReader, Protocol):
    """What this module needs of a snapshot."""

    names: Names


def found_entries(
    reader: SnapshotReader, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
) -> tuple[RowEntries, ...]:
    """See :meth:`fhir_server.store.Snapshot.entries_of`; ``where`` has no steps."""
    translator = FilterTranslator(type, reader.names)
    ids: dict[int, str] = {}
    found: dict[int, dict[Entry, None]] = {}
    for clause in visibility.clauses:
        paths = planner.access_paths_of_all(translator, where, Visibility((clause,), visibility.now), reader)
        if not paths:
            continue
        text, args = union(paths)
        sql = f"WITH h AS MATERIALIZED ({text} LIMIT ?) SELECT h.rid, r.id FROM h CROSS JOIN res r WHERE r.rid = h.rid"
        rows = dict(reader.rows(sql, (*args, limit)))
        ids |= rows
        for param, kind in params if rows else ():
            if (number := parameter_number(type, param, kind, reader.names)) is None:
                continue
            table, columns = TABLES[kind]
            admitted, admitted_args = class_admitted("x", clause.classes)
            listed = ", ".join([f"x.{column}" for column in columns])
            sql = (
                f"SELECT x.rid, {listed} FROM carray(?) c CROSS JOIN {of_row(table, 'x')}"
                f" WHERE x.rid = c.value AND x.param = ? AND {admitted}"
            )
            for rid, *values in reader.rows(sql, (apsw.carray(array("q", rows)), number, *admitted_args)):
                found.setdefault(rid, {})[Entry(param, kind, decode_value(kind, tuple(values), reader.names))] = None
    return tuple([RowEntries(id, tuple(found.get(rid, ()))) for rid, id in [*ids.items()][:limit]])


def found_references(reader: SnapshotReader, type: str, param: str, visibility: Visibility, among: frozenset[str] | None) -> frozenset[str]:
    """See :meth:`fhir_server.store.Snapshot.references_of`."""
    translator, number = FilterTranslator(type, reader.names), parameter_number(type, param, "reference", reader.names)
    where = refers_to(param, among)
    found: set[str] = set()
    for clause in visibility.clauses if number is not None else ():
        paths = planner.access_paths_of_all(translator, where, Visibility((clause,), visibility.now), reader)
        if paths:
            text, args = union(paths)
            admitted, admitted_args = class_admitted("x", clause.classes)
            sql = (
                f"WITH h AS MATERIALIZED ({text}) SELECT DISTINCT x.target FROM h CROSS JOIN {of_row('ref', 'x')}"
                f" WHERE x.rid = h.rid AND x.param = ? AND {admitted}"
            )
            found.update([target for (target,) in reader.rows(sql, (*args, number, *admitted_args))])
    return frozenset(found if among is None else found & among)
