"""Responses are equal byte for byte when only data hidden from the caller differs."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fhir_server import jsontext
from fhir_server.access import view
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.store import Row
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference import comparison
from tests.noninterference.capability import Capability
from tests.noninterference.case_generator import Case, case
from tests.noninterference.comparison import Tally, Twins
from tests.noninterference.oracle import CALLERS
from tests.noninterference.paired_server import FEED, Ask, World
from tests.noninterference.traces import TRACES, Trace, followed

BY_CALLER = pytest.mark.parametrize("number", range(len(CALLERS)), ids=[caller.name for caller in CALLERS])


@functools.cache
def capability() -> Capability:
    return asyncio.run(comparison.capability())


def seeds(number: int, rounds: range) -> list[int]:
    """Return the seeds of one caller's cases."""
    return [number + len(CALLERS) * turn for turn in rounds]


def require_silence(
    seed: int, asks: int, urls: tuple[str, str] = ("memory:", "memory:"), tally: Tally | None = None, thorough: bool = False
) -> None:
    leak = asyncio.run(comparison.found(case(seed), capability(), asks, urls, tally, thorough))
    if leak is not None:
        raise asyncio.run(comparison.shrunk(leak))


@BY_CALLER
def test_responses_are_equal_when_only_hidden_data_differs(number: int) -> None:
    tally = Tally()
    for seed in seeds(number, range(comparison.scaled(2))):
        require_silence(seed, 150, tally=tally)
    # A server that gives every request the same answer would pass too.
    assert tally.requests > 250 * tally.cases and tally.statuses[404] > 7 * tally.cases
    assert CALLERS[number].kind == "PX" or tally.statuses[200] > tally.requests / 5


@pytest.mark.slow
@BY_CALLER
def test_random_requests_do_not_reveal_hidden_data(number: int) -> None:
    for seed in seeds(number, range(2, 2 + comparison.scaled(65))):
        require_silence(seed, 250, thorough=True)


@BY_CALLER
def test_sqlite_responses_do_not_reveal_hidden_data(number: int, tmp_path: Path) -> None:
    require_silence(number, 60, (f"sqlite:///{tmp_path}/one.sqlite", f"sqlite:///{tmp_path}/two.sqlite"))


@pytest.mark.slow
@BY_CALLER
def test_sqlite_long_run_does_not_reveal_hidden_data(number: int, tmp_path: Path) -> None:
    for seed in seeds(number, range(1, 6)):
        require_silence(seed, 200, (f"sqlite:///{tmp_path}/one-{seed}.sqlite", f"sqlite:///{tmp_path}/two-{seed}.sqlite"))


def require_silence_of_mongodb(seed: int, asks: int) -> None:
    require_silence(seed, asks, (emptied_url("one"), emptied_url("two")))


@pytest.mark.parametrize("name", ["parent of a teenager", "limited backend", "billing office"])
def test_mongodb_responses_do_not_reveal_hidden_data(name: str) -> None:
    number = [caller.name for caller in CALLERS].index(name)
    require_silence_of_mongodb(number, 12)


@pytest.mark.slow
@BY_CALLER
def test_mongodb_long_run_does_not_reveal_hidden_data(number: int) -> None:
    for seed in seeds(number, range(3)):
        require_silence_of_mongodb(seed, 100)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_data_shown_earlier_leaves_no_trace_after_access_ends(trace: Trace) -> None:
    asyncio.run(followed(trace, 0, capability(), 80))


@pytest.mark.slow
@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_data_shown_earlier_leaves_no_trace_in_many_cases(trace: Trace) -> None:
    for seed in range(1, 1 + comparison.scaled(9)):
        asyncio.run(followed(trace, seed, capability(), 80))


def test_paired_servers_differ_for_an_unrestricted_caller() -> None:
    differing = [asyncio.run(_differ(case(seed))) for seed in range(2 * len(CALLERS))]
    assert sum(differing) >= 0.95 * len(differing)


async def _differ(drawn: Case) -> bool:
    twins = Twins(drawn)
    await twins.open()
    types = sorted({write.type for write in drawn.hidden()})
    listed = [
        [(await world.ask(Ask.get("feed", type, [("_count", "1000")]), feed)).body for type in types]
        for world, feed in zip(twins.worlds, twins.feeds, strict=True)
    ]
    await twins.close()
    return listed[0] != listed[1]


def test_public_documents_do_not_depend_on_data_or_caller() -> None:
    async def documents() -> list[bytes]:
        twins = Twins(case(0))
        await twins.open()
        found = []
        for world in twins.worlds:
            world.serve_documents()
            for path in ("metadata", ".well-known/smart-configuration", "openapi.json"):
                found += [
                    (await world.ask(Ask.get("document", path), token)).bytes() for token in ("", twins.tokens[0], await world.token(FEED))
                ]
        await twins.close()
        return found

    found = asyncio.run(documents())
    assert len(found) == 18 and len(set(found)) == 3


def test_paired_servers_with_one_seed_draw_equal_ids_and_tokens() -> None:
    """Check the harness itself: servers with the same seed generate equal ids and tokens."""
    worlds = [World(seed=5), World(seed=5)]

    async def drawn(world: World) -> tuple[str, str]:
        await world.open()
        return await world.token(CALLERS[0]), world.parts.service.new_id()

    assert len({asyncio.run(drawn(world)) for world in worlds}) == 1


def test_answer_that_lacks_a_required_element_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut a required element from every Observation: the control reads of a case find that the rest is no valid R4."""
    exact = view.View._without_hidden_parts

    def cut(self: view.View, row: Row, *what: Any) -> VisibleVersion:
        version = exact(self, row, *what)
        if row.type != "Observation" or not version.body:
            return version
        return msgspec.structs.replace(version, body=jsontext.remove_paths(version.body, [("status",)]))

    monkeypatch.setattr(view.View, "_without_hidden_parts", cut)
    leak = asyncio.run(comparison.found(case(0), capability(), 1))
    assert leak is not None and "Not valid R4" in str(leak)
