"""A purge of earlier versions tells nobody of hidden ones: two servers with different hidden data answer alike after it, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fhir_server.maintenance import purge_history as purging
from fhir_server.maintenance.purge_history import HistoryPurge, purge_history
from fhir_server.maintenance.relabel import relabel_store
from fhir_server.store import memory
from fhir_server.store.version_purge import Purge, choose
from fhir_server.writing import propagation
from tests.examples import examples
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference.case_generator import Case, case
from tests.noninterference.comparison import Leak, Twins, scaled
from tests.noninterference.oracle import CALLERS
from tests.noninterference.test_noninterference import BY_CALLER, capability, seeds

_ASKS = 60
Urls = tuple[str, str]
IN_MEMORY: Urls = ("memory:", "memory:")


def _horizon(drawn: Case) -> int:
    """An instant between two versions of rows that have several, visible or not."""
    writes = [write for number in range(2) for write in drawn.writes(number)]
    names = [write.name for write in writes]
    times = sorted({write.at for write in writes if names.count(write.name) > 2} or {write.at for write in writes})
    return Random(drawn.seed).choice(times[len(times) // 3 :]) + 1


async def _compare(drawn: Case, urls: Urls = IN_MEMORY, *, relabels: bool = True, asks: int = _ASKS) -> list[HistoryPurge]:
    """Compare the servers after a purge, and again after all rows were labeled again.  Raises Leak."""
    twins = Twins(drawn, urls)
    await twins.open()
    try:
        before = _horizon(drawn)
        done = [await purge_history(world.parts.store, before) for world in twins.worlds]
        await twins.run(capability(), asks)
        for world in twins.worlds if relabels else ():
            await relabel_store(world.parts.store, world.parts.labeler, world.parts.settings.base, world.clock.now)
        await twins.run(capability(), asks // 3, 1)
        return done
    finally:
        await twins.close()


@BY_CALLER
def test_purged_histories_are_equal_when_only_hidden_data_differs(number: int) -> None:
    capability()
    done: list[HistoryPurge] = []
    for seed in seeds(number, range(scaled(2))):
        done += asyncio.run(_compare(case(seed)))
    assert sum(purge.versions for purge in done) > 0


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_purged_histories_of_sqlite_are_equal(seed: int, tmp_path: Path) -> None:
    capability()
    asyncio.run(_compare(case(seed), (f"sqlite:///{tmp_path}/one.sqlite", f"sqlite:///{tmp_path}/two.sqlite")))


def test_purged_histories_of_mongodb_are_equal() -> None:
    capability()
    asyncio.run(_compare(case(1), (emptied_url("one"), emptied_url("two")), asks=examples(_ASKS, few=9)))


@pytest.mark.slow
@BY_CALLER
def test_many_purged_histories_are_equal(number: int) -> None:
    capability()
    for seed in seeds(number, range(2, 2 + scaled(42))):
        asyncio.run(_compare(case(seed)))


def _forgets_places(patch: pytest.MonkeyPatch) -> None:
    """A row that is labeled again moves to the place of its first version that is left."""
    patch.setattr(memory, "choose", lambda versions, before: Purge(choose(versions, before).numbers, {}))


def _begins_anew(patch: pytest.MonkeyPatch) -> None:
    """Labeling again counts versions from the first one that is left."""
    exact = propagation.RowLabeler.label

    async def label(labeler: Any, row: Any, value: Any, history: Any, *, stored: Any = None, purged: Any = None) -> Any:
        return await exact(labeler, row, value, history, stored=stored)

    patch.setattr(propagation.RowLabeler, "label", label)


FAULTS: list[Callable[[pytest.MonkeyPatch], None]] = [_forgets_places, _begins_anew]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_planted_fault_of_a_purge_is_detected(fault: Callable[[pytest.MonkeyPatch], None]) -> None:
    capability()
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        for seed in range(15 * len(CALLERS)):
            try:
                asyncio.run(_compare(case(seed)))
            except Leak:
                return
    raise AssertionError("The fault is not noticed.")


def test_types_whose_bodies_lend_keep_them() -> None:
    assert {type for type in ("Organization", "PractitionerRole", "Claim", "Specimen", "Observation") if purging.keeps_bodies(type)} == {
        "Organization", "PractitionerRole", "Claim", "Specimen",
    }  # fmt: skip
