"""The generic noninterference run detects each planted leak."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from tests.noninterference import comparison, planted_leaks_export, planted_leaks_interactions, planted_leaks_search
from tests.noninterference.case_generator import case
from tests.noninterference.comparison import Twins
from tests.noninterference.oracle import CALLERS
from tests.noninterference.planted_leaks import LEAKS, Leak
from tests.noninterference.planted_leaks_time import TIME_LEAKS
from tests.noninterference.request_generator import Capability
from tests.noninterference.test_noninterference import capability
from tests.noninterference.traces import TRACES, followed

assert planted_leaks_search and planted_leaks_interactions and planted_leaks_export  # importing these modules fills LEAKS

_CASES = 7 * len(CALLERS)
_ASKS = 150


@functools.cache
def _kept(seed: int) -> Twins:
    """Return the servers of a case, filled without a leak and saved for reuse."""

    async def built() -> Twins:
        twins = Twins(case(seed))
        await twins.open()
        twins.save()
        return twins

    return asyncio.run(built())


def _noticed(leak: Leak, seed: int) -> comparison.Leak | None:
    stated, kept = capability(), None if leak.stored else _kept(seed)
    with pytest.MonkeyPatch.context() as patch:
        leak.plant(patch)
        return asyncio.run(_run(kept, seed, stated))


async def _run(kept: Twins | None, seed: int, stated: Capability) -> comparison.Leak | None:
    twins = kept or Twins(case(seed))
    await (twins.open() if kept is None else _restored(twins))
    try:
        await twins.run(stated, _ASKS)
    except comparison.Leak as found:
        return found
    return None


async def _restored(twins: Twins) -> None:
    twins.restore()


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: f"{leak.channel} {leak.name}")
def test_planted_leak_is_detected(leak: Leak, record_property: Any) -> None:
    for seed in range(_CASES):
        found = _noticed(leak, seed)
        if found is not None:
            record_property("killed", f"{found.ask.kind} by the {found.case.caller.name}, case {seed + 1}")
            return
    pytest.fail(f"No request in {_CASES} cases noticed that {leak.name}.")


@pytest.mark.parametrize("leak", TIME_LEAKS, ids=lambda leak: f"{leak.channel} {leak.name}")
def test_planted_time_leak_is_detected(leak: Leak) -> None:
    for trace in TRACES:
        with pytest.MonkeyPatch.context() as patch:
            leak.plant(patch)
            try:
                asyncio.run(followed(trace, 0, capability(), 40))
            except comparison.Leak:
                return
    pytest.fail(f"No trace noticed that {leak.name}.")


def test_every_channel_family_has_a_planted_leak() -> None:
    families = {leak.channel[0] for leak in (*LEAKS, *TIME_LEAKS)}
    assert families == set("CQRAWMTS")
