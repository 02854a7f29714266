"""Key-value records of the reference store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from fhir_server.store import KeyValueRecord, system_now

if TYPE_CHECKING:
    from fhir_server.store.memory import MemoryStore


class MemoryKeyValues:
    """See :class:`fhir_server.store.KeyValueStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.now: Callable[[], int] = system_now

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        if await self.get(kind, key, self.now()) is not None:
            return False
        await self.put(kind, key, value, expires, family)
        return True

    async def get(self, kind: str, key: str, now: int) -> bytes | None:
        value, expires, _ = self._store.state.key_values.get((kind, key), (None, 0, ""))
        return value if expires > now else None

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        value = await self.get(kind, key, now)
        self._store.state.key_values.pop((kind, key), None)
        return value

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        self._store.state.key_values[kind, key] = value, expires, family

    async def exchange(self, kind: str, key: str, now: int, records: Sequence[KeyValueRecord]) -> bool:
        if await self.get(kind, key, now) is None:
            return False
        await self.pop(kind, key, now)
        for record in records:
            await self.put(*record)
        return True

    async def replace_value(self, kind: str, key: str, old: bytes, new: bytes, expires: int | None = None) -> bool:
        value, before, family = self._store.state.key_values.get((kind, key), (None, 0, ""))
        if value != old:
            return False
        self._store.state.key_values[kind, key] = new, before if expires is None else expires, family
        return True

    async def delete_family(self, family: str) -> None:
        records = self._store.state.key_values
        self._store.state.key_values = {key: record for key, record in records.items() if not family or record[2] != family}
        self._store.state.advance_epoch(None)

    async def delete_kinds(self, kinds: Collection[str]) -> dict[str, int]:
        records = self._store.state.key_values
        counts = {kind: sum(of == kind for of, _ in records) for kind in kinds}
        self._store.state.key_values = {key: record for key, record in records.items() if key[0] not in kinds}
        self._store.state.advance_epoch(None)
        return counts

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]:
        records = self._store.state.key_values
        return tuple(sorted((key, value) for (of, key), (value, expires, _) in records.items() if of == kind and expires > now))

    async def list_family(self, kind: str, family: str, now: int) -> tuple[tuple[str, bytes], ...]:
        records = self._store.state.key_values
        return tuple([(key, value) for key, value in await self.list_all(kind, now) if records[kind, key][2] == family])

    async def list_page(self, kind: str, now: int, skip: int, limit: int) -> tuple[int, tuple[tuple[str, bytes], ...]]:
        listed = await self.list_all(kind, now)
        return len(listed), listed[skip : skip + limit]

    async def purge(self, now: int) -> None:
        records = self._store.state.key_values
        self._store.state.key_values = {key: record for key, record in records.items() if record[1] > now}
