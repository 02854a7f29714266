"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fhir_server.smart.accounts import users
from fhir_server.store.mongodb import failures, reader, retry
from fhir_server.store.sqlite import SqliteStore
from fhir_server.web import public_fetch
from tests.mongo.shared_mongod import drop_databases
from tests.waiting import HANG

# A property holds or does not, however long an example takes on this machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Seconds (of the second: milliseconds) after which the server gives up waiting or reading.
LIMITS: tuple[tuple[Any, str, float], ...] = (
    (failures, "_RETRY_SECONDS", HANG),
    (reader, "MILLISECONDS", int(HANG * 1000)),
    (retry, "_RETRY_SECONDS", HANG),
    (public_fetch, "DEADLINE", HANG),
    (users, "_LOCK_TIMEOUT", HANG),
)


@pytest.fixture(scope="session", autouse=True)
def _server_time_limits_are_out_of_reach() -> Iterator[None]:
    """What takes a slow machine longer than a caller would wait is no failure.  Tests of a limit set it themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SqliteStore.__init__.__kwdefaults__, "seconds", HANG)
        for module, name, limit in LIMITS:
            patch.setattr(module, name, limit)
        yield


@pytest.fixture(scope="module", autouse=True)
def _drop_databases_after_each_module() -> Iterator[None]:
    yield
    drop_databases()
