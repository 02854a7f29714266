from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.suite_client import Server
from tests.ehr.environment import Ehr


@pytest.fixture(scope="package")
def _ehr() -> Iterator[Ehr]:
    ehr = Ehr()
    yield ehr
    ehr.close()


@pytest.fixture
def ehr(_ehr: Ehr) -> Iterator[Ehr]:
    """The whole server with the seed records, which these tests only read.  Resets the clock after each test."""
    now = _ehr.served._now
    yield _ehr
    _ehr.served.at(now)


@pytest.fixture
def server(ehr: Ehr) -> Server:
    """The same server, as a conformance suite uses it."""
    return Server(ehr)
