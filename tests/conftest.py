"""What all suites share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.mongo.servers import drop_databases

# A property holds or does not, however long an example takes on this machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="module", autouse=True)
def _databases_end_with_their_module() -> Iterator[None]:
    yield
    drop_databases()
