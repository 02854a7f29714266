"""Measures what the check of the access token adds to a read: the same reads with the check and with given permissions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import stores
from benchmarks.load import BenchmarkRequest
from benchmarks.operations import operations
from fhir_server.access.authentication import Authenticator
from fhir_server.access.permissions import Permissions
from fhir_server.api import FhirApi
from fhir_server.app import build_components, fhir_api
from fhir_server.store import Snapshot

_ROUNDS: Final = 15
_READS: Final = 2000


@dataclass(frozen=True, slots=True)
class TokenCheckCost:
    """CPU microseconds of a read in the process, with and without the check."""

    with_check: float
    without_check: float

    @property
    def added(self) -> float:
        """Return what the check adds, as a share of the read without it."""
        return self.with_check / self.without_check - 1

    def share(self, whole: float) -> float:
        """Return the same for a read that takes ``whole`` microseconds over HTTP, including the check."""
        cost = self.with_check - self.without_check
        return cost / (whole - cost)


def token_check(rows: int) -> TokenCheckCost:
    """Measure on a store of about ``rows`` resources.  Returns the lowest values of several rounds."""
    path = stores.copy_of_size(rows)
    try:
        return asyncio.run(_measure(stores.sqlite_url(path)))
    finally:
        stores.remove(path)


async def _measure(store: str) -> TokenCheckCost:
    reads = next(operation for operation in operations(await stores.access_tokens(store)) if operation.name == "read").requests
    components = build_components(stores.settings(store))
    await components.store.prepare()
    api, check = fhir_api(components), Authenticator.authenticate
    known: dict[str | None, Permissions] = {}

    async def given_permissions(
        authenticator: Authenticator,
        snapshot: Snapshot,
        authorization: str | None,
        now: int,
        expected: tuple[str, str] | None = None,
        proven: str = "",
    ) -> Permissions:
        if authorization not in known:
            known[authorization] = await check(authenticator, snapshot, authorization, now, expected, proven)
        return known[authorization]

    rounds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * _ROUNDS):
        checked = number % 2 == 0
        Authenticator.authenticate = check if checked else given_permissions  # type: ignore[method-assign, assignment]
        rounds[checked].append(await _time_reads(api, reads[:_READS]))
        await components.auditor.flush()
    Authenticator.authenticate = check  # type: ignore[method-assign]
    await components.close()
    return TokenCheckCost(min(rounds[True]), min(rounds[False]))


async def _time_reads(api: FhirApi, reads: Any) -> float:
    """Return the CPU microseconds per read."""
    scopes = [_scope(read) for read in reads]
    began = time.process_time()
    for scope in scopes:
        await api(scope, _nothing, _sent)
    return (time.process_time() - began) / len(scopes) * 1e6


def _scope(read: BenchmarkRequest) -> MutableMapping[str, Any]:
    headers = [(b"authorization", f"Bearer {read.token}".encode()), (b"accept", b"*/*"), (b"host", b"127.0.0.1:8000")]
    return {"type": "http", "method": "GET", "path": read.path, "root_path": "/fhir", "query_string": b"", "headers": headers}


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _sent(message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise RuntimeError(f"a read returned status {message['status']}")
