"""A Composition, a Group and a required profile reveal no hidden row that they name or that a write names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.access import visible_parts
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.packages.validator import ProfileValidator
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import Row
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference import comparison
from tests.noninterference.collections_and_profiles import CollectionTwins
from tests.noninterference.comparison import Tally
from tests.noninterference.other_twins import OtherTwins
from tests.noninterference.paired_server import NOW
from tests.noninterference.planted_leaks import Patch, unlimited
from tests.noninterference.test_noninterference import BY_CALLER, seeds
from tests.seeds.seed_data import references

TWINS = OtherTwins(CollectionTwins)


@BY_CALLER
def test_collections_and_profiles_do_not_reveal_hidden_rows(number: int) -> None:
    tally = Tally()
    TWINS.require_silence(number, 90, tally=tally)
    assert tally.by_kind["collected"] > 15 and tally.by_kind["profiled"] > 15


@pytest.mark.slow
@BY_CALLER
def test_a_long_run_with_collections_and_profiles_does_not_reveal_hidden_rows(number: int) -> None:
    for seed in seeds(number, range(1, 1 + comparison.scaled(12))):
        TWINS.require_silence(seed, 250)


def test_collections_and_profiles_do_not_reveal_hidden_rows_on_sqlite(tmp_path: Path) -> None:
    TWINS.require_silence(0, 60, (f"sqlite:///{tmp_path}/one.sqlite", f"sqlite:///{tmp_path}/two.sqlite"))


@pytest.mark.slow
def test_collections_and_profiles_do_not_reveal_hidden_rows_on_mongodb() -> None:
    TWINS.require_silence(0, 40, (emptied_url("one"), emptied_url("two")))


# Leaks on purpose: each must be noticed in a case that is silent without it.


def entries_of_collections_are_left_in_if_they_are_stored(patch: Patch) -> None:
    exact, exact_shown = visible_parts.paths_to_remove, View._shown
    stored: set[str] = set()

    async def shown(self: View, targets: set[str]) -> frozenset[str]:
        stored.clear()
        everything = await unlimited(self)
        stored.update(await self._snapshot.visible(frozenset(targets), lambda _: everything))
        return await exact_shown(self, targets)

    def paths_to_remove(row: Row, admitted: frozenset[int], seen: frozenset[str]) -> list[jsontext.Path]:
        return exact(row, admitted, seen | stored if row.type in ("Composition", "Group") else seen)

    patch.setattr(View, "_shown", shown)
    patch.setattr(visible_parts, "paths_to_remove", paths_to_remove)


def a_profile_is_checked_on_what_a_reference_names(patch: Patch) -> None:
    exact = ProfileValidator.require

    async def require(self: ProfileValidator, type: str, value: Mapping[str, Any]) -> None:
        async with self._store.snapshot() as snapshot:
            everything = Visibility((VisibilityClause(None, frozenset(range(len(await snapshot.classes()))), released_only=False),), NOW)
            targets = frozenset(name for name in references(value) if name.count("/") == 1)
            stored = await snapshot.visible(targets, lambda _: everything)
        if any(name.startswith("Condition/") for name in stored):
            raise Problem("unprocessable", "What the reference names does not meet its profile.")
        await exact(self, type, value)

    patch.setattr(ProfileValidator, "require", require)


@pytest.mark.parametrize(
    "plant",
    (entries_of_collections_are_left_in_if_they_are_stored, a_profile_is_checked_on_what_a_reference_names),
    ids=lambda plant: plant.__name__,
)
def test_a_planted_leak_of_collections_and_profiles_is_noticed(plant: Callable[[Patch], None]) -> None:
    TWINS.require_noticed(plant, 90, 4)
