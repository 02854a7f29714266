"""Reads of a transaction whose result its own writes may change: what it has collected is sent before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence

from fhir_server.search.filters import Filter
from fhir_server.search.rows import RowEntries
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, VersionStamp
from fhir_server.store.changes import Change, ChangeRange
from fhir_server.store.mongodb.reader import MongoSnapshot


class FlushedReads(MongoSnapshot):
    """The reads of a snapshot, each after the writes so far."""

    @abstractmethod
    async def _flush(self) -> None:
        """Send the rows collected so far."""

    async def count(self, type: str, where: Filter, visibility: Visibility, *, most: int | None = None) -> int:
        await self._flush()
        return await super().count(type, where, visibility, most=most)

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        await self._flush()
        return await super().deleted_unfiltered(targets)

    async def newest(self, type: str, id: str, visibility: Visibility) -> Row | None:
        await self._flush()
        return await super().newest(type, id, visibility)

    async def versions(self, type: str, id: str, visibility: Visibility, numbers: Collection[int] | None = None) -> tuple[Row, ...]:
        await self._flush()
        return await super().versions(type, id, visibility, numbers)

    async def stamps_unfiltered(self, type: str, id: str, numbers: Collection[int]) -> dict[int, VersionStamp]:
        await self._flush()
        return await super().stamps_unfiltered(type, id, numbers)

    async def newest_of(self, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]) -> dict[tuple[str, str], Row]:
        await self._flush()
        return await super().newest_of(names, visibilities)

    async def changes_unfiltered(self, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
        await self._flush()
        return await super().changes_unfiltered(visibilities, limit, range)

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        await self._flush()
        return await super().patients_of(type, where, visibility)

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        await self._flush()
        return await super().references_of(type, param, visibility, among)

    async def entries_of(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]:
        await self._flush()
        return await super().entries_of(type, where, visibility, params, limit)

    async def types_of_unfiltered(self, patients: frozenset[str]) -> frozenset[str]:
        await self._flush()
        return await super().types_of_unfiltered(patients)
