"""Fixtures for all tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, settings

from fhir_server import app
from fhir_server.api import RequestLimits
from fhir_server.consent import policy as policies
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.settings import Settings
from fhir_server.smart.accounts import users
from fhir_server.store.mongodb import failures, reader, retry
from fhir_server.store.sqlite import SqliteStore
from fhir_server.web import public_fetch
from tests.examples import try_few
from tests.mongo.shared_mongod import drop_databases
from tests.waiting import HANG

# A slow example is not a failure: the result of a property test does not depend on the speed of the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Time limits after which the server stops waiting or reading.  In seconds, except MILLISECONDS.
LIMITS: tuple[tuple[Any, str, float], ...] = (
    (failures, "_RETRY_SECONDS", HANG),
    (reader, "MILLISECONDS", int(HANG * 1000)),
    (retry, "_RETRY_SECONDS", HANG),
    (public_fetch, "DEADLINE", HANG),
    (users, "_LOCK_TIMEOUT", HANG),
)


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection, and collect rarely, as a server does.  It saves a quarter of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_configure(config: pytest.Config) -> None:
    try_few("not slow" in config.option.markexpr)


@pytest.fixture(scope="session", autouse=True)
def _server_time_limits_are_out_of_reach() -> Iterator[None]:
    """Raise the time limits so that a slow machine does not reach them.  A test of a limit sets that limit itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SqliteStore.__init__.__kwdefaults__, "seconds", HANG)
        patch.setattr(app, "request_limits", partial(_with_time, app.request_limits))
        for module, name, limit in LIMITS:
            patch.setattr(module, name, limit)
        yield


@pytest.fixture(scope="session", autouse=True)
def _shipped_policies_and_lists_are_read_once() -> Iterator[None]:
    """Let all servers of a process share the policies and code lists that ship, which take a tenth of a second to read and check."""
    policy, lists = cache(policies.load), cache(SensitivityCodes.load)

    def load_policy(name: str, *, timezone: str = "") -> policies.Policy:
        return (policies.load if "/" in name or name.endswith(".json") else policy)(name, timezone=timezone)

    def load_lists(folder: str = "", own: str = "") -> SensitivityCodes:
        return (SensitivityCodes.load if folder or own else lists)(folder, own)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "policies", SimpleNamespace(load=load_policy))
        patch.setattr(app, "SensitivityCodes", SimpleNamespace(load=load_lists))
        yield


@pytest.fixture(scope="session", autouse=True)
def _passwords_are_hashed_with_little_work() -> Iterator[None]:
    """Thousands of tests sign in.  The parameters of argon2id are in each hash, so that all other code is as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        yield


def _with_time(limits: Callable[[Settings], RequestLimits], settings: Settings) -> RequestLimits:
    """The limits of requests, with more seconds than a slow machine needs."""
    found = limits(settings)
    return found._replace(budget=found.budget._replace(seconds=HANG))


@pytest.fixture(scope="module", autouse=True)
def _drop_databases_after_each_module() -> Iterator[None]:
    yield
    drop_databases()
