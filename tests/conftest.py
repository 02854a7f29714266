"""What all suites share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mongo.servers import drop_databases


@pytest.fixture(scope="module", autouse=True)
def _databases_end_with_their_module() -> Iterator[None]:
    yield
    drop_databases()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a real MongoDB server is a sweep of its own: `make test-all` starts one."""
    for item in items:
        if "mongo" in item.nodeid:
            item.add_marker(pytest.mark.slow)
