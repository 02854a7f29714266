"""Servers for the tests of a module, with the rows that these tests ask for beside the seed records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served, store_url

STORES = ("memory", "sqlite", "mongodb")


def put(served: Served, resource: dict[str, Any]) -> int:
    """Store a resource under its id, as the institution's feed does, and return the status of the answer."""
    return served.request(served.token(), "PUT", f"{resource['resourceType']}/{resource['id']}", body=resource).status


def filled(*resources: dict[str, Any]) -> Served:
    """A server on a store in memory, with the seed records and these resources."""
    return _with(seeded(), resources)


def _with(server: Served, resources: tuple[dict[str, Any], ...]) -> Served:
    for one in resources:
        assert put(server, one) == 201, one
    return server


def served_with(*resources: dict[str, Any], stores: tuple[str, ...] = STORES) -> Callable[..., Iterator[Served]]:
    """A fixture of a module: a server on each of these stores in turn (see :func:`tests.served.store_url`), with these resources."""

    @pytest.fixture(scope="module", params=stores)
    def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        server = _with(seeded(store_url(request.param, tmp_path_factory.mktemp("store"))), resources)
        yield server
        server.close()

    return served
