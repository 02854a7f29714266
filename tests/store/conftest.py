"""Each store test runs on every store module."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.store import Store
from tests.store.stores import SCHEMES, empty_store

RunScenario = Callable[[Callable[[Store], Awaitable[Any]]], Any]


@pytest.fixture(params=SCHEMES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunScenario:
    """Return a function that runs a scenario, a coroutine function of a store, on an empty store."""

    def run(scenario: Callable[[Store], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            store = empty_store(request.param, tmp_path)
            try:
                return await scenario(store)
            finally:
                await store.close()

        return asyncio.run(whole())

    return run
