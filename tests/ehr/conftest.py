from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ehr.environment import Ehr


@pytest.fixture(scope="session")
def _ehr() -> Iterator[Ehr]:
    made = Ehr()
    yield made
    made.close()


@pytest.fixture
def ehr(_ehr: Ehr) -> Iterator[Ehr]:
    """Provide the server that all tests of this folder share.  Tests only read its records; the clock is reset after each test."""
    now = _ehr.served._now
    yield _ehr
    _ehr.served.at(now)
