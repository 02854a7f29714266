"""Labels and release dates that a row has lent stay lent: no hidden write shows a caller more than before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.mongo.shared_mongod import emptied_url
from tests.noninterference.comparison import scaled
from tests.noninterference.hidden_writes import Counts, GrownError, compared
from tests.noninterference.planted_leaks import Leak
from tests.noninterference.planted_leaks_labels import LENDING_FAULTS

_WRITES = 5  # in each graph


def require_varied(counts: Counts) -> None:
    """A server that hides or shows everything, or writes that callers see, would prove nothing."""
    assert counts.hidden > counts.writes and counts.shown > counts.writes
    assert counts.unseen > counts.writes / 2
    assert {"delete", "to ordinary", "move", "unlink", "touch", "other patient", "relabel"} <= set(counts.kinds)


@pytest.mark.parametrize("start", (0, *(pytest.param(start, marks=pytest.mark.slow) for start in (20, 40))))
def test_hidden_writes_change_no_answer(start: int, tmp_path: Path) -> None:
    require_varied(asyncio.run(compared(f"sqlite:///{tmp_path}/graphs.sqlite", range(start, start + 20), _WRITES)))


def test_hidden_writes_change_no_answer_of_mongodb() -> None:
    require_varied(asyncio.run(compared(emptied_url("graphs"), range(1000, 1006), _WRITES)))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_thousands_of_hidden_writes_change_no_answer(block: int, tmp_path: Path) -> None:
    for start in range(2000 + 200 * block, 2200 + 200 * block, 25):
        url = f"sqlite:///{tmp_path}/graphs-{start}.sqlite"
        asyncio.run(compared(url, range(start, start + int(scaled(25))), _WRITES))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_thousands_of_hidden_writes_change_no_answer_of_mongodb(block: int) -> None:
    for start in range(6000 + 200 * block, 6200 + 200 * block, 25):
        asyncio.run(compared(emptied_url("graphs"), range(start, start + int(scaled(25))), _WRITES))


# Graphs that notice a fault.  They are tried first; the others are tried if the draws have changed.
NOTICED_IN = {
    "a deleted row lends nothing": 10,
    "only the newest version lends": 15,
    "a department is what its newest version says": 15,
    "labels of a changed row go one step": 35,
    "a changed row relabels nothing": 35,
}


@pytest.mark.parametrize("leak", LENDING_FAULTS, ids=lambda leak: leak.name)
def test_planted_lending_fault_is_detected(leak: Leak, monkeypatch: pytest.MonkeyPatch) -> None:
    leak.plant(monkeypatch)
    with pytest.raises(GrownError):
        for start in dict.fromkeys((NOTICED_IN.get(leak.name, 0), *range(0, 100, 5))):
            asyncio.run(compared("memory:", range(start, start + 5), _WRITES))
