"""The comparison of stores detects faults that the translation to MongoDB could have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.search.filters import AllOf, AnyOf
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import conditions
from fhir_server.store.mongodb import documents, reader, sorting, steps, translate
from tests.properties.random_data import CLASSES
from tests.properties.store_comparison import found_wrong
from tests.store.stores import empty_store

Fault = Callable[[pytest.MonkeyPatch], None]
EVERY = frozenset(CLASSES)


def entry_classes_are_ignored(patch: pytest.MonkeyPatch) -> None:
    right = translate._entry
    patch.setattr(translate, "_entry", lambda param, array, test, _: right(param, array, test, EVERY))


def classes_are_ignored_under_not(patch: pytest.MonkeyPatch) -> None:
    right = translate.condition

    def wrong(type: str, filter: Any, classes: Any) -> Any:
        return right(type, filter, EVERY if isinstance(filter, translate.Not) else classes)

    patch.setattr(translate, "condition", wrong)


def class_and_value_of_different_entries(patch: pytest.MonkeyPatch) -> None:
    def wrong(param: str, array: str, test: Any, classes: Any) -> Any:
        if test == translate.FALSE or not classes:
            return translate.FALSE
        return {"$and": [{array: {"$elemMatch": {"p": param, **test}}}, {array: {"$elemMatch": {"p": param, "c": {"$in": list(classes)}}}}]}

    patch.setattr(translate, "_entry", wrong)


def clauses_changed(change: Callable[[VisibilityClause], VisibilityClause]) -> Fault:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = conditions.effective_clauses
        wrong = lambda visibility: right(Visibility(tuple(map(change, visibility.clauses)), visibility.now))  # noqa: E731
        patch.setattr(conditions, "effective_clauses", wrong)

    return plant


def clauses_share_their_classes(patch: pytest.MonkeyPatch) -> None:
    right = conditions.effective_clauses

    def wrong(visibility: Visibility) -> Any:
        every = frozenset().union(*(clause.classes for clause in visibility.clauses))
        return right(
            Visibility(tuple(VisibilityClause(w.patients, every, w.released_only, w.where) for w in visibility.clauses), visibility.now)
        )

    patch.setattr(conditions, "effective_clauses", wrong)


def only_the_first_patient_counts(patch: pytest.MonkeyPatch) -> None:
    right = translate._paths
    patch.setattr(translate, "_paths", lambda wanted, patients: right(wanted, patients)[:1])


def all_for_any(patch: pytest.MonkeyPatch) -> None:
    right = translate.condition

    def wrong(type: str, filter: Any, classes: Any) -> Any:
        return right(type, AllOf(filter.parts) if isinstance(filter, AnyOf) and filter.parts else filter, classes)

    patch.setattr(translate, "condition", wrong)


def sorts_by(change: Callable[[Any], Any]) -> Fault:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = sorting._value
        patch.setattr(sorting, "_value", lambda key, classes: change(right(key, classes)))

    return plant


def sort_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = sorting._value
    patch.setattr(sorting, "_value", lambda key, _: right(key, EVERY))


def a_page_begins_with_the_last_ones_end(patch: pytest.MonkeyPatch) -> None:
    def wrong(place: Any, visibility: Visibility) -> Any:
        return (
            ({"at": {"$gte": place[1]}},)
            if visibility.limited_to_patients
            else ({"n": {"$gt": place[0]}}, {"n": place[0], "at": {"$gte": place[1]}})
        )

    patch.setattr(reader, "after_place", wrong)
    patch.setattr(sorting, "after_place", wrong)


def bounded_answers_by_patient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reader, "row_order_keys", lambda visibility: sorting.ORDER)


def a_row_keeps_its_first_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(documents, "has_same_view", lambda made, row: True)


def table(name: str, prefix: str, meaning: Callable[..., Any]) -> Fault:
    return lambda patch: patch.setitem(getattr(translate, name), prefix, meaning)


def step_sees_all_classes(method: str) -> Fault:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(steps.MongoSteps, method)

        def wrong(*args: Any) -> Any:
            return right(*[_with_every_class(one) if isinstance(one, Visibility) else one for one in args])

        patch.setattr(steps.MongoSteps, method, wrong)

    return plant


def _with_every_class(visibility: Visibility) -> Visibility:
    clauses = [VisibilityClause(clause.patients, EVERY, clause.released_only, clause.where) for clause in visibility.clauses]
    return Visibility(tuple(clauses), visibility.now)


FAULTS: dict[str, Fault] = {
    "entry classes are ignored": entry_classes_are_ignored,
    "class and value of different entries": class_and_value_of_different_entries,
    "one clause's classes apply to another": clauses_share_their_classes,
    "release is ignored": clauses_changed(lambda w: VisibilityClause(w.patients, w.classes, False, w.where)),
    "patients are ignored": clauses_changed(lambda w: VisibilityClause(None, w.classes, w.released_only, w.where)),
    "conditions of clauses are ignored": clauses_changed(lambda w: VisibilityClause(w.patients, w.classes, w.released_only)),
    "only a row's first patient counts": only_the_first_patient_counts,
    "classes are ignored under Not": classes_are_ignored_under_not,
    "all for any": all_for_any,
    "sort sees all classes": sort_sees_all_classes,
    "everything sorts alike": sorts_by(lambda value: {"$literal": None}),
    "a page begins with the last one's end": a_page_begins_with_the_last_ones_end,
    "bounded answers by patient": bounded_answers_by_patient,
    "a row keeps its first place": a_row_keeps_its_first_place,
    "gt compares the lower end": table("_DATE", "gt", lambda lo, hi: {"lo": {"$gt": hi}}),
    "sa includes overlaps": table("_DATE", "sa", lambda lo, hi: {"hi": {"$gt": hi}}),
    "ge is gt": table("_NUMBER", "ge", lambda lo, hi, value: {"v": {"$gt": value}}),
    "eq includes the end of its range": table("_NUMBER", "eq", lambda lo, hi, value: {"v": {"$gte": lo, "$lte": hi}}),
    "prefix is contains": table("_TEXT", "prefix", translate._contains),
    "exact is folded": table("_TEXT", "exact", lambda value: {"v": value}),
    "a chain sees all classes": step_sees_all_classes("matching_ids"),
    "_has sees all classes": step_sees_all_classes("referred_targets"),
}


def in_transactions(name: str, wrong: Any) -> Fault:
    """Return a fault in the merging of the results of several commands."""
    return lambda patch: patch.setattr(sorting, name, wrong)


MERGE_FAULTS: dict[str, Fault] = {
    "the first clause's value counts": in_transactions("_better", lambda key, one, other: other),
    "the last clause's value counts": in_transactions("_better", lambda key, one, other: one),
    "ties in the order of patients": in_transactions("_place", lambda visibility, place: place),
}


async def _wrong(folder: Path, *, in_transaction: bool = False) -> list[str]:
    store = empty_store("mongodb", folder)
    try:
        return await found_wrong(store, types=80, cases=50, seed=2027, in_transaction=in_transaction)
    finally:
        await store.close()


def _cases(faults: Iterable[str], quick: int) -> list[Any]:
    """Cases of which only the first run in ``make test``: some faults show in the first row sets, others after a minute."""
    return [pytest.param(fault, marks=() if number < quick else pytest.mark.slow) for number, fault in enumerate(faults)]


@pytest.mark.parametrize("fault", _cases(FAULTS, 5))
def test_comparison_detects_planted_mongodb_translation_faults(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert asyncio.run(_wrong(tmp_path)) != []


@pytest.mark.parametrize("fault", _cases(MERGE_FAULTS, 1))
def test_comparison_detects_faults_in_merging_in_transactions(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MERGE_FAULTS[fault](monkeypatch)
    assert asyncio.run(_wrong(tmp_path, in_transaction=True)) != []
