"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mongo.shared_mongod import drop_databases


@pytest.fixture(scope="module", autouse=True)
def _drop_databases_after_each_module() -> Iterator[None]:
    yield
    drop_databases()
