from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.seeded import seeded
from tests.served import store_url
from tests.subscriptions.environment import Subscribing


@pytest.fixture
def world() -> Iterator[Subscribing]:
    """A server on the reference store."""
    server = seeded()
    yield Subscribing(server)
    server.close()


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subscribing]:
    """A server on each store."""
    server = seeded(store_url(request.param, tmp_path))
    yield Subscribing(server)
    server.close()
