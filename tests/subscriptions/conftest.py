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
    subscribing = Subscribing(seeded())
    yield subscribing
    subscribing.close()


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subscribing]:
    """A server on each store."""
    subscribing = Subscribing(seeded(store_url(request.param, tmp_path)))
    yield subscribing
    subscribing.close()
