from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.seeded import seeded
from tests.served import Served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


@pytest.fixture(scope="module")
def feed(served: Served) -> str:
    return served.token()
