"""The steps of conditions (chains and ``_has``) lead to what their own Visibility admits, in every store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING, AllOf, Filter, Has, Not, ReferredBy, RefersToMatch, TokenIs
from fhir_server.search.rows import SearchableRow
from fhir_server.search.visibility import Visibility
from fhir_server.store import Store
from fhir_server.store.mongodb import steps as mongo_steps
from fhir_server.store.mongodb.locks import claim
from fhir_server.store.sqlite import steps as sqlite_steps
from tests.store.conftest import RunScenario
from tests.store.samples import ANYONE, NOW, OBS, clause, found, in_job, put, record, reference, token, visibility
from tests.store.stores import empty_store

FIND = Has("code", TokenIs("s", "x"))
ROWS = (
    record("a", "p1", entries=[reference("of", "Encounter/seen"), token("code", "x")]),
    record("b", "p1", entries=[reference("of", "Encounter/classed"), token("code", "y")]),
    record("c", "p1", entries=[reference("of", "Encounter/held")]),
    record("d", "p1", entries=[reference("of", "Encounter/other")]),
    record("e", "p1", entries=[reference("of", "Encounter/seen", class_id=2), token("code", "x")]),
    record("f", "p1", entries=[reference("of", "Encounter/inner")]),
    record("g", "p1", entries=[reference("of", "Procedure/seen"), reference("by", "Encounter/seen")]),
    record("hidden", "p1", class_id=2, entries=[reference("of", "Encounter/bare"), token("code", "x")]),
    record("seen", "p1", type="Encounter", entries=[token("code", "x"), reference("of", "Location/here")]),
    record("classed", "p1", type="Encounter", class_id=2, entries=[token("code", "x")]),
    record("held", "p1", type="Encounter", release_at=NOW + 1, entries=[token("code", "x")]),
    record("other", "p2", type="Encounter", entries=[token("code", "x")]),
    record("inner", "p1", type="Encounter", entries=[token("code", "x", class_id=2)]),
    record("bare", "p1", type="Encounter"),
    record("seen", "p1", type="Procedure", entries=[token("code", "x")]),
    record("here", type="Location", entries=[token("code", "z")]),
)
P1 = visibility(clause("p1"))


def to(where: Filter, seen: Visibility | None = P1) -> Filter:
    return RefersToMatch("of", "Encounter", where, seen)


def by(where: Filter, seen: Visibility | None = P1) -> Filter:
    return ReferredBy(OBS, "of", where, seen)


CASES: list[tuple[str, Filter, str, Visibility]] = [
    (OBS, to(FIND), "a", P1),
    (OBS, to(FIND, visibility(clause())), "ad", P1),
    (OBS, to(FIND, visibility(clause("p1", classes={0, 1, 2}))), "abf", P1),
    (OBS, to(FIND, visibility(clause("p1"), now=NOW + 1)), "ac", P1),
    (OBS, to(FIND, visibility(clause("p1", where=Not(FIND)))), "", P1),
    (OBS, to(FIND, visibility(clause("p2"), clause("p1"))), "ad", P1),
    (OBS, to(FIND), "ae", visibility(clause("p1", classes={0, 2}))),
    (OBS, to(FIND, None), "", P1),
    (OBS, to(FIND, Visibility()), "", P1),
    (OBS, Not(to(FIND, None)), "abcdefg", P1),
    (OBS, Not(to(FIND)), "bcdefg", P1),
    (OBS, to(EVERYTHING), "af", P1),
    (OBS, to(Not(FIND)), "f", P1),
    (OBS, RefersToMatch("by", "Encounter", FIND, P1), "g", P1),
    (OBS, to(RefersToMatch("of", "Location", Has("code", TokenIs(None, "z")), ANYONE)), "a", P1),
    (OBS, to(RefersToMatch("of", "Location", Has("code", TokenIs(None, "z")), P1)), "", P1),
    (OBS, to(by(FIND)), "a", P1),
    (OBS, AllOf((to(FIND), Has("code", TokenIs("s", "y")))), "", P1),
    ("Encounter", by(FIND), "seen", P1),
    ("Encounter", by(FIND, visibility(clause("p1", classes={0, 1, 2}))), "bare seen", P1),
    ("Encounter", by(FIND, visibility(clause("p2"))), "", P1),
    ("Encounter", by(FIND, None), "", P1),
    ("Encounter", Not(by(FIND)), "bare inner", P1),
    ("Encounter", by(EVERYTHING), "inner seen", P1),
    ("Encounter", by(to(FIND)), "seen", P1),
    ("Procedure", by(EVERYTHING), "seen", P1),
    ("Location", ReferredBy("Encounter", "of", by(FIND), P1), "here", ANYONE),
]


@pytest.mark.parametrize("few", [None, -1])
def test_step_leads_to_what_its_own_visibility_admits(run: RunScenario, monkeypatch: pytest.MonkeyPatch, few: int | None) -> None:
    if few is not None:  # SQLite then tests each row of a search over all patients
        monkeypatch.setattr(sqlite_steps, "_FEW", few)

    async def scenario(store: Store) -> None:
        await put(store, *ROWS)
        for type, where, ids, seen in CASES:
            expected = ids.split() if type != OBS else list(ids)
            assert sorted(await found(store, where, seen, type=type)) == expected, (type, where)
            in_transaction = await in_job(store, "find", type, where, seen, limit=100)
            assert sorted(row.id for row in in_transaction.rows) == expected, (type, where)

    run(scenario)


def _chains_follow_hidden_references(patch: pytest.MonkeyPatch) -> None:
    exact = match._entries
    patch.setattr(match, "_entries", lambda row, param, classes: exact(row, param, frozenset(range(4)) if param == "of" else classes))


def _has_follows_hidden_references(patch: pytest.MonkeyPatch) -> None:
    def following(step: ReferredBy, other: SearchableRow, name: str, others: match.OtherRows) -> bool:
        refers = any(entry.param == step.param and entry.value == (name,) for entry in other.entries)
        return refers and step.visibility is not None and match.matches_visible(step.visibility, other, step.where, others)

    patch.setattr(match, "_refers_and_matches", following)


@pytest.mark.parametrize(
    ("plant", "type", "where", "found_by"),
    [
        (_chains_follow_hidden_references, OBS, to(FIND), ["a", "e", "i"]),
        (_has_follows_hidden_references, "Encounter", by(Has("by", TokenIs("s", "hand"))), ["seen"]),
    ],
)
def test_hidden_reference_is_followed_only_by_a_planted_fault(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], type: str, where: Filter, found_by: list[str]
) -> None:
    async def scenario() -> list[str]:
        store = empty_store("memory", Path())
        await put(store, *ROWS, record("i", "p1", entries=[reference("of", "Encounter/seen", class_id=2), token("by", "hand")]))
        exact = await found(store, where, P1, type=type)
        assert exact != found_by
        with monkeypatch.context() as patch:
            plant(patch)
            return sorted(await found(store, where, P1, type=type))

    assert asyncio.run(scenario()) == found_by


def test_patients_of_a_step_are_those_of_the_rows_found(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *ROWS)
        async with store.snapshot() as snapshot:
            assert await snapshot.patients_of(OBS, to(FIND), P1) == {"p1"}
            assert await snapshot.patients_of(OBS, to(FIND, None), P1) == frozenset()

    run(scenario)


def test_searches_with_the_same_step_share_a_lock_of_mongodb() -> None:
    assert claim(OBS, to(FIND, P1)) == claim(OBS, to(FIND, ANYONE)) != claim(OBS, to(Not(FIND), P1))


def test_mongodb_refuses_a_step_to_too_many_visible_rows(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_steps, "MAX_STEP_ROWS", 1)

    async def scenario(store: Store) -> None:
        await put(store, *ROWS)
        assert await found(store, to(FIND), P1) == ["a"]  # hidden rows do not count
        for type, where in ((OBS, to(EVERYTHING)), ("Encounter", by(EVERYTHING))):
            try:
                assert await found(store, where, P1, type=type) != []  # other stores have no such limit
            except Problem as problem:
                assert problem.kind == "invalid" and "more than 1 resources" in str(problem)

    run(scenario)
