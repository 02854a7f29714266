"""The soak's judgment of memory: a leak is above its bound, caches that fill at the start are not."""

from __future__ import annotations

import pytest

from benchmarks.soak import MEGABYTES_AN_HOUR, Minute, slope


@pytest.mark.parametrize(
    ("memories", "is_flat"),
    [
        ([100.0 + minute % 3 for minute in range(30)], True),
        ([100.0 + min(minute, 4) * 20 for minute in range(30)], True),  # the first sixth does not count
        ([100.0 + minute * 0.5 for minute in range(30)], False),
        ([100.0 + minute % 3 + minute * 0.5 for minute in range(30)], False),
    ],
    ids=["noise", "caches", "leak", "leak-in-noise"],
)
def test_slope_of_memory_tells_a_leak_from_noise(memories: list[float], is_flat: bool) -> None:
    assert (slope(memories) <= MEGABYTES_AN_HOUR) is is_flat


def test_latency_percentiles_are_of_all_requests() -> None:
    minute = Minute([float(number) for number in range(100)])
    assert (minute.at(0.5), minute.at(0.99), minute.at(1.0)) == (50.0, 99.0, 99.0)
    assert Minute().at(0.5) == 0.0
