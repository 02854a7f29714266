"""Looks up what the steps of a condition (chained parameters and ``_has``) lead to, in SQLite (:mod:`fhir_server.store.chains`).

A search begins with what a step leads to, if that belongs to named patients or is little.  For a step that leads to more, each row that
the search reads is tested by EXISTS (:mod:`~fhir_server.store.sqlite.translate`), so that a page is found soon.  Both read only the bands
that the step's Visibility admits; EXISTS also reads rows held back from release, as every search over all patients does.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import apsw

from fhir_server.search.filters import AllOf, Filter, Present, ReferredBy, Step
from fhir_server.search.visibility import Visibility
from fhir_server.store.conditions import after_prefix
from fhir_server.store.sqlite import planner
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.sorting import union
from fhir_server.store.sqlite.translate import FilterTranslator, class_admitted, of_row, parameter_number

_FEW: Final = 2_000  # rows, or references, of all patients that are looked up before a search
_NO_LIMIT: Final = 2**31


@dataclass(frozen=True, slots=True)
class SqliteSteps:
    """See :class:`fhir_server.store.chains.StepReader`."""

    reader: planner.RowReader
    names: Names

    async def matching_ids(self, type: str, where: Filter, visibility: Visibility) -> Collection[str] | None:
        paths = planner.access_paths_of_all(FilterTranslator(type, self.names), where, visibility, self.reader)
        if not paths:
            return ()
        text, args = union(paths)
        most = _NO_LIMIT if visibility.limited_to_patients else _FEW
        sql = f"SELECT r.id FROM ({text} LIMIT ?) h CROSS JOIN res r WHERE r.rid = h.rid"
        found = self.reader.rows(sql, (*args, most + 1))
        return None if len(found) > most else [id for (id,) in found]

    async def referred_targets(self, step: ReferredBy, visibility: Visibility, prefix: str) -> Collection[str] | None:
        number = parameter_number(step.type, step.param, "reference", self.names)
        if number is None:
            return ()
        translator = FilterTranslator(step.type, self.names)
        where = AllOf((step.where, Present(step.param, "reference")))
        found: set[str] = set()
        for clause in visibility.clauses:
            paths = planner.access_paths_of_all(translator, where, Visibility((clause,), visibility.now), self.reader)
            if not paths:
                continue
            text, args = union(paths)
            most = _NO_LIMIT if clause.patients is not None else _FEW
            rows = self.reader.rows(f"SELECT h.rid FROM ({text} LIMIT ?) h", (*args, most + 1))
            if len(rows) > most:
                return None
            if not rows:
                continue
            admitted, admitted_args = class_admitted("x", clause.classes)
            sql = (
                f"SELECT x.target FROM carray(?) h CROSS JOIN {of_row('ref', 'x')}"
                f" WHERE x.rid = h.value AND x.param = ? AND x.target >= ? AND x.target < ? AND {admitted} LIMIT ?"
            )
            limits = (prefix, after_prefix(prefix))
            rids = apsw.carray(array("q", [rid for (rid,) in rows]))
            targets = self.reader.rows(sql, (rids, number, *limits, *admitted_args, most + 1))
            if len(targets) > most:
                return None
            found.update([target for (target,) in targets])
        return found

    def unresolved(self, step: Step) -> Filter:
        return step
