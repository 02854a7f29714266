"""The comparison of stores detects planted faults of the translator to SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.search.filters import (
    AllOf,
    AnyOf,
)
from fhir_server.search.visibility import VisibilityClause
from fhir_server.store import Row
from fhir_server.store.sqlite import planner, reader, sorting, transaction, translate
from tests.properties.random_data import CLASSES
from tests.properties.store_comparison import disagreements


def rewritten(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault in the text of statements."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = reader.SqliteSnapshot.rows
        patch.setattr(reader.SqliteSnapshot, "rows", lambda self, sql, args: right(self, sql.replace(old, new), args))

    return plant


def table(name: str, prefix: str, meaning: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault in the meaning of one prefix."""
    return lambda patch: patch.setitem(getattr(translate, name), prefix, meaning)


def any_for_all(patch: pytest.MonkeyPatch) -> None:
    right = translate.Meaning.condition

    def wrong(self: Any, filter: Any, classes: Any) -> Any:
        return right(self, AllOf(filter.parts) if isinstance(filter, AnyOf) and filter.parts else filter, classes)

    patch.setattr(translate.Meaning, "condition", wrong)


def negation_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = translate.Meaning._negated
    patch.setattr(translate.Meaning, "_negated", lambda self, part, _: right(self, part, frozenset(CLASSES)))


def sort_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = sorting.sort_value

    def wrong(meaning: Any, key: Any, clauses: Any, now: int) -> Any:
        return right(meaning, key, [VisibilityClause(None, frozenset(CLASSES), False)], now)

    patch.setattr(sorting, "sort_value", wrong)


def windows_share_their_classes(patch: pytest.MonkeyPatch) -> None:
    right = planner.merged

    def wrong(clauses: tuple[VisibilityClause, ...]) -> tuple[VisibilityClause, ...]:
        every = frozenset().union(*(clause.classes for clause in clauses))
        return right(tuple(VisibilityClause(w.patients, every, w.released_only, w.where) for w in clauses))

    patch.setattr(planner, "merged", wrong)


def patient_windows_are_ignored(patch: pytest.MonkeyPatch) -> None:
    right = planner.merged
    patch.setattr(planner, "merged", lambda clauses: right(tuple(VisibilityClause(None, w.classes, w.released, w.where) for w in clauses)))


def release_is_ignored(patch: pytest.MonkeyPatch) -> None:
    right = planner.merged
    patch.setattr(planner, "merged", lambda clauses: right(tuple(VisibilityClause(w.patients, w.classes, False, w.where) for w in clauses)))


def a_row_stands_where_its_first_version_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction.row_order, "first", lambda versions: min(stored for _, stored in versions))


def a_row_stands_where_its_last_version_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction.row_order, "first", lambda versions: versions[-1][1])


def relabelling_moves_nothing(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, type: int, stored: Any, row: Row, entries: Any) -> None:
        self._replace(stored, row, entries, stored.rid & transaction.SEQUENCE, stored.own)

    patch.setattr(transaction.SqliteTransaction, "_settle", wrong)


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "entry classes are ignored": rewritten("substr(?, x.vclass + 1, 1) = x'01'", "substr(?, 1) IS NOT NULL"),
    "row classes are ignored": rewritten("substr(?, r.vclass + 1, 1) = x'01'", "substr(?, 1) IS NOT NULL"),
    "classes are ignored under Not": negation_sees_all_classes,
    "classes are ignored by sort values": sort_sees_all_classes,
    "one window's classes serve another": windows_share_their_classes,
    "release is ignored": release_is_ignored,
    "release at now is too late": rewritten("r.release_at <= ?", "r.release_at < ?"),
    "patient windows are ignored": patient_windows_are_ignored,
    "only a row's first patient counts": rewritten(" FROM also ", " FROM (SELECT 0 AS patient, 0 AS rid) "),
    "all for any": any_for_all,
    "gt compares the lower end": table("_DATE", "gt", lambda lo, hi: ("x.lo > ?", (hi,))),
    "sa includes overlaps": table("_DATE", "sa", lambda lo, hi: ("x.hi > ?", (hi,))),
    "ge is gt": table("_NUMBER", "ge", lambda lo, hi, value: ("x.number > ?", (value,))),
    "eq includes the end of its range": table("_NUMBER", "eq", lambda lo, hi, value: ("x.number BETWEEN ? AND ?", (lo, hi))),
    "prefix is contains": table("_TEXT", "prefix", lambda value: ("instr(x.folded, ?) > 0", (value,))),
    "exact is folded": table("_TEXT", "exact", lambda value: ("x.folded = ?", (value,))),
    "missing values come first": rewritten("NULLS LAST", "NULLS FIRST"),
    "ties in reverse": rewritten("NULLS LAST, rid", "NULLS LAST, -rid"),
    "a page begins with the last one's end": rewritten(f"rid & {transaction.SEQUENCE} > ?", f"rid & {transaction.SEQUENCE} >= ?"),
    "named patients' rows come by patient": rewritten(f"rid & {transaction.SEQUENCE}", "rid"),
    "a row stands where its first version was stored": a_row_stands_where_its_first_version_was,
    "a row stands where its last version was stored": a_row_stands_where_its_last_version_was,
    "a row that is relabelled stays where it stands": relabelling_moves_nothing,
    "a walked row comes at any of its values": rewritten(" y WHERE ", " y WHERE 0 AND "),
    "least for greatest": rewritten("max(x.", "min(x."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_comparison_detects_planted_sqlite_translation_faults(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert asyncio.run(disagreements("sqlite", tmp_path)) != []
