"""The soak's judgment of memory: a leak is above its bound, caches that fill at the start are not."""

from __future__ import annotations

import pytest

from benchmarks.soak import BLOCKS_AN_HOUR, MEGABYTES_AN_HOUR, Minute, is_flat, slope


@pytest.mark.parametrize(
    ("memories", "flat"),
    [
        ([100.0 + minute % 3 for minute in range(30)], True),
        ([100.0 + min(minute, 4) * 20 for minute in range(30)], True),  # the first sixth does not count
        ([100.0 + minute * 0.5 for minute in range(30)], False),
        ([100.0 + minute % 3 + minute * 0.5 for minute in range(30)], False),
    ],
    ids=["noise", "caches", "leak", "leak-in-noise"],
)
def test_slope_of_memory_tells_a_leak_from_noise(memories: list[float], flat: bool) -> None:
    assert is_flat(slope(memories), 0.0) is flat


def test_leak_of_small_objects_or_of_a_library_is_found() -> None:
    blocks = [700_000.0 + minute % 3 * 9_000 for minute in range(30)]
    assert is_flat(0.0, slope(blocks))
    assert not is_flat(0.0, slope([each + minute * 80 * 60 for minute, each in enumerate(blocks)])), "a block for each request"
    assert not is_flat(MEGABYTES_AN_HOUR + 1, 0.0) and not is_flat(0.0, BLOCKS_AN_HOUR + 1)


def test_latency_percentiles_are_of_all_requests() -> None:
    minute = Minute([float(number) for number in range(100)])
    assert (minute.at(0.5), minute.at(0.99), minute.at(1.0)) == (50.0, 99.0, 99.0)
    assert Minute().at(0.5) == 0.0
