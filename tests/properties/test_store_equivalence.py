"""Every store returns the same results as the reference implementation for random conditions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fhir_server.store.sqlite import newest, planner, steps
from tests.properties.store_comparison import TYPES, disagreements
from tests.store.stores import SCHEMES

FEWER = {"mongodb": 15}  # number of row sets for slow stores; `make test-all` also runs the full number


def test_sqlite_matches_reference_with_small_planner_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("_PATIENT_BOUND", "_PAGE_BOUND", "_ALL_BOUND"):
        monkeypatch.setattr(planner, bound, 3)
    monkeypatch.setattr(steps, "_FEW", 2)
    monkeypatch.setattr(newest, "FEW", 2)
    assert asyncio.run(disagreements("sqlite", tmp_path)) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_store_matches_reference_on_random_conditions(scheme: str, tmp_path: Path) -> None:
    assert asyncio.run(disagreements(scheme, tmp_path, FEWER.get(scheme, TYPES))) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_transaction_matches_reference_on_random_conditions(scheme: str, tmp_path: Path) -> None:
    assert asyncio.run(disagreements(scheme, tmp_path, 3, in_transaction=True)) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", FEWER)
def test_slow_store_matches_reference_in_a_long_run(scheme: str, tmp_path: Path) -> None:
    assert asyncio.run(disagreements(scheme, tmp_path)) == []
