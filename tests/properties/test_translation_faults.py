"""The comparison of stores detects faults that the translation to SQLite could have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    NearTo,
    NumbersAre,
    QuantityIs,
    WordIs,
)
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import Row, conditions
from fhir_server.store.sqlite import reader, sorting, steps, transaction, translate
from tests.properties.random_data import CLASSES
from tests.properties.store_comparison import disagreements

ANY = QuantityIs("gt", -9, -9, -9)


def rewritten(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a fault in the text of SQL statements."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = reader.SqliteSnapshot.rows
        patch.setattr(reader.SqliteSnapshot, "rows", lambda self, sql, args: right(self, sql.replace(old, new), args))

    return plant


def table(name: str, prefix: str, meaning: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a fault in the meaning of one prefix."""
    return lambda patch: patch.setitem(getattr(translate, name), prefix, meaning)


def predicate(kind: type, meaning: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a fault in the meaning of one kind of predicate."""
    return lambda patch: patch.setitem(translate._PREDICATES, kind, meaning)


def any_for_all(patch: pytest.MonkeyPatch) -> None:
    right = translate.FilterTranslator.condition

    def wrong(self: Any, filter: Any, classes: Any) -> Any:
        return right(self, AllOf(filter.parts) if isinstance(filter, AnyOf) and filter.parts else filter, classes)

    patch.setattr(translate.FilterTranslator, "condition", wrong)


def negation_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = translate.FilterTranslator._negated
    patch.setattr(translate.FilterTranslator, "_negated", lambda self, part, _: right(self, part, frozenset(CLASSES)))


def sort_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = sorting.sort_value

    def wrong(meaning: Any, key: Any, clauses: Any, *more: Any) -> Any:
        return right(meaning, key, [VisibilityClause(None, frozenset(CLASSES), False)], *more)

    patch.setattr(sorting, "sort_value", wrong)


def effective_clauses_of(change: Callable[[Visibility], Visibility]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a fault in the clauses that a search uses."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = conditions.effective_clauses
        patch.setattr(conditions, "effective_clauses", lambda visibility: right(change(visibility)))

    return plant


def clauses_changed(change: Callable[[VisibilityClause], VisibilityClause]) -> Callable[[pytest.MonkeyPatch], None]:
    return effective_clauses_of(lambda visibility: replace(visibility, clauses=tuple(map(change, visibility.clauses))))


def clauses_share_their_classes(patch: pytest.MonkeyPatch) -> None:
    def wrong(visibility: Visibility) -> Visibility:
        every = frozenset().union(*(clause.classes for clause in visibility.clauses))
        return replace(visibility, clauses=tuple(replace(clause, classes=every) for clause in visibility.clauses))

    effective_clauses_of(wrong)(patch)


def patients_of_clauses_are_ignored(patch: pytest.MonkeyPatch) -> None:
    clauses_changed(lambda clause: replace(clause, patients=None))(patch)


def release_is_ignored(patch: pytest.MonkeyPatch) -> None:
    clauses_changed(lambda clause: replace(clause, released_only=False))(patch)


def a_row_stands_where_its_first_version_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction.row_order, "first_stored", lambda versions: min(stored for _, stored in versions))


def a_row_stands_where_its_last_version_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction.row_order, "first_stored", lambda versions: versions[-1][1])


def relabeling_moves_nothing(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, type: int, stored: Any, row: Row, entries: Any) -> None:
        self._replace_current(type, stored, row, entries, stored.rid & transaction.SEQUENCE, stored.stored)

    patch.setattr(transaction.SqliteTransaction, "_relabel_current", wrong)


def a_relabeled_row_keeps_its_band(patch: pytest.MonkeyPatch) -> None:
    right = transaction.SqliteTransaction.band
    bands: dict[str, int] = {}

    def wrong(self: Any, type: int, row: Row) -> int:
        return bands.setdefault(f"{row.type}/{row.id}", right(self, type, row))

    patch.setattr(transaction.SqliteTransaction, "band", wrong)


def step_sees(method: str, change: Callable[[Visibility], Visibility], *, row_by_row: bool = False) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a fault in what a step sees: in its look-up or, row by row, in its translation."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(steps, "_FEW", -1 if row_by_row else steps._FEW)  # -1: no step is looked up
        holder = translate.FilterTranslator if row_by_row else steps.SqliteSteps
        right = getattr(holder, method)

        def wrong(*args: Any) -> Any:
            return right(*[change(one) if isinstance(one, Visibility) else one for one in args])

        patch.setattr(holder, method, wrong)

    return plant


def every_class(visibility: Visibility) -> Visibility:
    return replace(visibility, clauses=tuple(replace(clause, classes=frozenset(CLASSES)) for clause in visibility.clauses))


def sort_step_sees(change: Callable[[Visibility], Visibility]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a fault in what a step of a chained sort key sees."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = sorting._value_through

        def wrong(meaning: Any, step: Any, *more: Any) -> Any:
            return right(meaning, replace(step, visibility=change(step.visibility or Visibility())), *more)

        patch.setattr(sorting, "_value_through", wrong)

    return plant


def every_patient(visibility: Visibility) -> Visibility:
    return replace(visibility, clauses=tuple(replace(clause, patients=None) for clause in visibility.clauses))


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "entry classes are ignored": rewritten("substr(?, x.vclass + 1, 1) = x'01'", "substr(?, 1) IS NOT NULL"),
    "row classes are ignored": rewritten("substr(?, r.vclass + 1, 1) = x'01'", "substr(?, 1) IS NOT NULL"),
    "classes are ignored under Not": negation_sees_all_classes,
    "classes are ignored by sort values": sort_sees_all_classes,
    "one clause's classes apply to another": clauses_share_their_classes,
    "release is ignored": release_is_ignored,
    "release at now is too late": rewritten("r.release_at <= ?", "r.release_at < ?"),
    "patients of clauses are ignored": patients_of_clauses_are_ignored,
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
    "a row that is relabeled stays where it stands": relabeling_moves_nothing,
    "a relabeled row keeps its band": a_relabeled_row_keeps_its_band,
    "rows released since they were written are not found": rewritten(
        "r.release_at > r.updated AND r.release_at <= ?", "r.release_at > r.updated AND 0 = ?"
    ),
    "rows of a second patient are not found": rewritten("also a WHERE a.patient = p.value", "also a WHERE 0 AND a.patient = p.value"),
    "a walked row comes at any of its values": rewritten(" WHERE (y.rid = r.rid ", " WHERE 0 AND (y.rid = r.rid "),
    "a chain sees all classes": step_sees("matching_ids", every_class),
    "a chain sees all patients": step_sees("matching_ids", every_patient),
    "_has sees all classes": step_sees("referred_targets", every_class),
    "_has sees all patients": step_sees("referred_targets", every_patient),
    "a chain sees all classes, row by row": step_sees("_refers_to_match", every_class, row_by_row=True),
    "_has sees all classes, row by row": step_sees("_referred_by", every_class, row_by_row=True),
    "a chain goes by any parameter": rewritten("x.param = ? AND x.target >= ?", "x.param = x.param + 0 * ? AND x.target >= ?"),
    "a chained sort key sees all classes": sort_step_sees(every_class),
    "a chained sort key sees all patients": sort_step_sees(every_patient),
    "a word is found within another": predicate(WordIs, lambda word, names: ("instr(x.words, ?) > 0", (word.word,))),
    "near is between two heights": predicate(NearTo, lambda near, names: ("x.z >= ? AND x.z <= ?", near.bounds)),
    "only the first of two numbers counts": predicate(
        NumbersAre, lambda test, names: translate._numbers(NumbersAre(test.first, ANY), names)
    ),
    "least for greatest": rewritten("max(x.", "min(x."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_comparison_detects_planted_sqlite_translation_faults(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert asyncio.run(disagreements("sqlite", tmp_path)) != []
