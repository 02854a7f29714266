"""Custom search parameters reveal no hidden data: by them, too, responses are equal when only that differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fhir_server.search import hidden_references, index
from fhir_server.search.custom_parameters import kind_of_entries
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference import comparison
from tests.noninterference.comparison import Tally
from tests.noninterference.custom_parameters import CustomTwins
from tests.noninterference.oracle import CALLERS
from tests.noninterference.other_twins import OtherTwins
from tests.noninterference.planted_leaks import Patch
from tests.noninterference.test_noninterference import BY_CALLER, seeds

TWINS = OtherTwins(CustomTwins, control=True)


@BY_CALLER
def test_custom_parameters_do_not_reveal_hidden_data(number: int) -> None:
    tally = Tally()
    TWINS.require_silence(number, 80, tally=tally)
    assert CALLERS[number].kind == "PX" or tally.statuses[200] > tally.requests / 5


@pytest.mark.slow
@BY_CALLER
def test_a_long_run_with_custom_parameters_does_not_reveal_hidden_data(number: int) -> None:
    for seed in seeds(number, range(1, 1 + comparison.scaled(12))):
        TWINS.require_silence(seed, 250)


def test_custom_parameters_do_not_reveal_hidden_data_on_sqlite(tmp_path: Path) -> None:
    TWINS.require_silence(0, 60, (f"sqlite:///{tmp_path}/one.sqlite", f"sqlite:///{tmp_path}/two.sqlite"))


@pytest.mark.slow
def test_custom_parameters_do_not_reveal_hidden_data_on_mongodb() -> None:
    TWINS.require_silence(0, 40, (emptied_url("one"), emptied_url("two")))


# Leaks on purpose: each must be noticed in a case that is silent without it.


def entries_are_of_the_whole_row(patch: Patch) -> None:
    exact = index.entries

    def entries(*what: Any) -> Any:
        return tuple(msgspec.structs.replace(one, path=()) if kind_of_entries(one.param) else one for one in exact(*what))

    patch.setattr(index, "entries", entries)


def references_can_be_asked_for_their_presence(patch: Patch) -> None:
    patch.setattr(hidden_references, "kind_of_entries", lambda name: "")


NOTICED_IN = {entries_are_of_the_whole_row: 0, references_can_be_asked_for_their_presence: 1}


@pytest.mark.parametrize("plant", NOTICED_IN, ids=lambda plant: plant.__name__)
def test_a_planted_leak_of_custom_parameters_is_noticed(plant: Callable[[Patch], None]) -> None:
    OtherTwins(CustomTwins).require_noticed(plant, 150, 6, NOTICED_IN[plant])
