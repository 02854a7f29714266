"""The generic noninterference run detects each planted leak."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from tests.noninterference import (
    comparison,
    planted_leaks_export,
    planted_leaks_formats,
    planted_leaks_history,
    planted_leaks_interactions,
    planted_leaks_labels,
    planted_leaks_operations,
    planted_leaks_reads,
    planted_leaks_search,
    planted_leaks_side,
)
from tests.noninterference.capability import Capability
from tests.noninterference.case_generator import case
from tests.noninterference.comparison import Twins
from tests.noninterference.noticed_in import NOTICED_IN
from tests.noninterference.oracle import CALLERS
from tests.noninterference.planted_leaks import LEAKS, Leak
from tests.noninterference.planted_leaks_time import TIME_LEAKS
from tests.noninterference.test_noninterference import capability
from tests.noninterference.traces import TRACES, followed

# Importing these modules fills LEAKS.
assert (
    planted_leaks_formats
    and planted_leaks_operations
    and planted_leaks_history
    and planted_leaks_search
    and planted_leaks_reads
    and planted_leaks_interactions
    and planted_leaks_export
    and planted_leaks_labels
    and planted_leaks_side
)

_CASES = 21 * len(CALLERS)  # most are noticed within ten cases; some need rows that rarely meet
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


@functools.cache
def _is_silent(seed: int) -> bool:
    """The control: whether nothing is noticed in a case without a leak.  Else what is noticed with one may be something else."""
    return asyncio.run(_run(_kept(seed), seed, capability())) is None


def noticed_by(leak: Leak) -> comparison.Leak | None:
    """Return what the generic run notices of a planted leak, or None."""
    seeds = dict.fromkeys((NOTICED_IN.get(leak.name, 0), *range(_CASES)))
    return next((found for seed in seeds if (found := _noticed(leak, seed)) is not None), None)


def trace_that_notices(leak: Leak) -> str | None:
    """Return the name of the trace that notices a planted leak, or None."""
    for trace in TRACES:
        with pytest.MonkeyPatch.context() as patch:
            leak.plant(patch)
            try:
                asyncio.run(followed(trace, 0, capability(), 40))
            except comparison.Leak:
                return trace.name
    return None


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: f"{leak.channel} {leak.name}")
def test_planted_leak_is_detected(leak: Leak, record_property: Any) -> None:
    found = noticed_by(leak)
    assert found is not None, f"No request in {_CASES} cases noticed that {leak.name}."
    assert _is_silent(found.case.seed), f"Case {found.case.seed} is noticed without a leak, too."
    record_property("killed", f"{found.ask.kind} by the {found.case.caller.name}, case {found.case.seed + 1}")


@pytest.mark.parametrize("leak", TIME_LEAKS, ids=lambda leak: f"{leak.channel} {leak.name}")
def test_planted_time_leak_is_detected(leak: Leak) -> None:
    assert trace_that_notices(leak) is not None, f"No trace noticed that {leak.name}."


def test_every_case_that_is_noted_is_that_of_a_planted_leak() -> None:
    assert NOTICED_IN.keys() <= {leak.name for leak in LEAKS} and all(0 < seed < _CASES for seed in NOTICED_IN.values())


def test_every_channel_family_has_a_planted_leak() -> None:
    families = {leak.channel[0] for leak in (*LEAKS, *TIME_LEAKS)}
    assert families == set("CQRAWMTS")
