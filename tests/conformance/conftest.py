from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.suite_client import Server
from tests.ehr.environment import Ehr


@pytest.fixture(scope="package")
def _ehr() -> Iterator[Ehr]:
    made = Ehr()
    yield made
    made.close()


@pytest.fixture
def ehr(_ehr: Ehr) -> Iterator[Ehr]:
    """The whole server on the seed records, which these tests only read; the clock is put back after each."""
    now = _ehr.served._now
    yield _ehr
    _ehr.served.at(now)


@pytest.fixture
def server(ehr: Ehr) -> Server:
    """The same, as a conformance suite meets it."""
    return Server(ehr)
