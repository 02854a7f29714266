"""A store that refuses writes while the server is read-only: whatever the door, there is no other way to the data.

Still stored are lines of the audit log, and what is needed to sign in and to read: sessions, codes, tokens, and counts of attempts.
Still removed are those, and families of tokens: access can always be ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

from fhir_server.operation.state import OperationState
from fhir_server.store import KeyValueRecord, KeyValueStore, Store, Transaction

T = TypeVar("T")
STILL_WRITTEN: Final = frozenset(
    {
        "access",
        "account-events",
        "app-as-allowed",
        "apps-after-sign-out",
        "attempt",
        "clients-of-session",
        "code",
        "device",
        "dpop-proof",
        "federation-state",
        "grant-index-complete",
        "half-signed-in",
        "jti",
        "known-network",
        "launch",
        "link-pause",
        "link-place",
        "logout-notice",
        "logout-request",
        "one-time-code",
        "open-app",
        "pairwise-account",
        "pairwise-subject",
        "pushed-request",
        "rate-limit",
        "refresh",
        "remembered-consent",
        "request",
        "session",
        "session-apps",
        "session-seen",
        "session-watch",
        "spent-code",
        "spent-refresh",
        "successor",
        "to-app",
        "turn",
        "turns",
        "user-index",
    }
)
"""Kinds of records by which people and apps sign in, counts of calls to linked systems, and indexes that the first look-up may make."""

_STILL_WRITTEN_OF_EACH: Final = ("grants of user ", "grants of client ")  # what access tokens and codes are found by

_STILL_TAKEN: Final = STILL_WRITTEN | {"recovery-code"}  # one that is used to sign in is used up


class _Delegate:
    """Another object, of which some methods are replaced."""

    def __init__(self, target: object, state: OperationState) -> None:
        self._target = target
        self._state = state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class _GatedKeyValues(_Delegate):
    """See :class:`fhir_server.store.KeyValueStore`."""

    _target: KeyValueStore

    async def _pass(self, kind: str, allowed: frozenset[str]) -> None:
        if kind not in allowed and not kind.startswith(_STILL_WRITTEN_OF_EACH):
            await self._state.require_writable()

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        await self._pass(kind, STILL_WRITTEN)
        await self._target.put(kind, key, value, expires, family)

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        await self._pass(kind, STILL_WRITTEN)
        return await self._target.put_if_absent(kind, key, value, expires, family)

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        await self._pass(kind, _STILL_TAKEN)
        return await self._target.pop(kind, key, now)

    async def exchange(self, kind: str, key: str, now: int, records: Sequence[KeyValueRecord]) -> bool:
        for each in (kind, *(record.kind for record in records)):
            await self._pass(each, STILL_WRITTEN)
        return await self._target.exchange(kind, key, now, records)

    async def replace_value(self, kind: str, key: str, old: bytes, new: bytes, expires: int | None = None) -> bool:
        await self._pass(kind, STILL_WRITTEN)
        return await self._target.replace_value(kind, key, old, new, expires)

    async def purge(self, now: int) -> None:
        await self._state.require_writable()
        await self._target.purge(now)


class _GatedStore(_Delegate):
    """See :class:`fhir_server.store.Store`."""

    _target: Store

    def __init__(self, store: Store, state: OperationState) -> None:
        super().__init__(store, state)
        self.snapshot = store.snapshot
        self.append_log = store.append_log
        self.read_log = store.read_log
        self.key_values = cast(KeyValueStore, _GatedKeyValues(store.key_values, state))

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        await self._state.require_writable()
        return await self._target.write(job)


def gated(store: Store, state: OperationState) -> Store:
    """The same store; it raises Problem ``read_only`` for what must not be written.  The state is read from it, too."""
    state.store = store
    return cast(Store, _GatedStore(store, state))
