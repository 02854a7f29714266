"""The custom search parameters of a store: what its active SearchParameter resources add, and whether their index is complete.

Each resource has a record, which is written in the transaction that writes the resource (:mod:`fhir_server.writing.search_parameters`).
A change of what may be used advances the permission epoch, so all servers follow with their next request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from fhir_server.search.custom_parameters import CustomParameter, CustomParameters
from fhir_server.store import Snapshot

KIND: Final = "search-parameter"
"""The kind of the records, by the id of the SearchParameter."""


class StoredDefinition(msgspec.Struct, frozen=True):
    """What one SearchParameter adds.

    ``ready``: all rows have its index entries.  ``taken``: different whenever it is taken anew, because rows that are written while
    another definition is in its place have no entries of it.
    """

    parameters: tuple[CustomParameter, ...]
    ready: bool = False
    taken: str = ""


async def read_definitions(snapshot: Snapshot) -> dict[str, StoredDefinition]:
    """The definitions by the id of their SearchParameter."""
    found = await snapshot.records_unfiltered(KIND)
    return {key: msgspec.json.decode(value, type=StoredDefinition) for key, value in found}


def combined(definitions: Iterable[StoredDefinition]) -> CustomParameters:
    """The parameters of several definitions.  Two may add the same one, such as those of two versions of a package."""
    definitions = tuple(definitions)
    ready = frozenset(one for definition in definitions if definition.ready for one in definition.parameters)
    return CustomParameters(ready, frozenset(one for definition in definitions for one in definition.parameters) - ready)


class StoredParameters:
    """Reads the custom parameters of a snapshot.  One per server process."""

    def __init__(self) -> None:
        self._cached: tuple[int, CustomParameters] | None = None

    async def read(self, snapshot: Snapshot, security: int, *, is_committed: bool) -> CustomParameters:
        """The parameters as of this snapshot.

        ``security``: its counter of the permission epoch, which every change advances.  ``is_committed``: the snapshot has no writes of
        its own, after which another transaction may get the same counter.
        """
        if is_committed and self._cached is not None and self._cached[0] == security:
            return self._cached[1]
        found = combined((await read_definitions(snapshot)).values())
        if is_committed:
            self._cached = security, found
        return found


def added_by_others(definitions: Mapping[str, StoredDefinition], id: str) -> CustomParameters:
    """The parameters of all definitions but that of one SearchParameter."""
    return combined(definition for key, definition in definitions.items() if key != id)
