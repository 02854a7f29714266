"""What a write of a SearchParameter means for the searches of the server (http://hl7.org/fhir/R4/searchparameter.html).

While the resource is active, the parameter is one of its bases' types.  From that transaction on, each row that is written has its index
entries; rows from before get theirs in small steps (:mod:`fhir_server.writing.indexing_steps`), and until then it is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fhir_server.access.stored_parameters import KIND, StoredDefinition, added_by_others, combined, read_definitions
from fhir_server.errors import Problem
from fhir_server.search import parameter_definitions
from fhir_server.search.custom_parameters import CustomParameter, CustomParameters
from fhir_server.store import Transaction

TYPE: Final = "SearchParameter"


class SearchParameterFollower:
    """Knows the custom parameters of a transaction, and follows its writes of SearchParameters.

    ``known``: the parameters as this transaction sees them at its beginning, if they are known.  ``refuses``: whether a SearchParameter
    that cannot be used is refused; otherwise it is stored and adds nothing, and ``unused`` has its id and the reason.
    """

    def __init__(self, tx: Transaction, known: CustomParameters | None = None, *, refuses: bool = True) -> None:
        self._tx = tx
        self._known = known
        self._refuses = refuses
        self.unused: list[tuple[str, str]] = []

    async def all(self) -> CustomParameters:
        """The custom parameters of which rows must have index entries."""
        if self._known is None:
            await self._tx.permission_epoch(None)  # a transaction that changes them and one that depends on them cannot both commit
            self._known = combined((await read_definitions(self._tx)).values())
        return self._known

    async def follow(self, id: str, resource: Mapping[str, Any] | None) -> None:
        """Take what the SearchParameter with this id adds; ``resource`` None: it is deleted.

        Raises Problem ``unprocessable`` if it cannot be used.
        """
        definitions = await read_definitions(self._tx)
        before, others = definitions.get(id), added_by_others(definitions, id)
        added = self._read(id, resource, others) if resource is not None else ()
        if added == (before.parameters if before else ()):
            return
        was_ready = others.ready | (frozenset(before.parameters) if before and before.ready else frozenset())
        after = StoredDefinition(added, was_ready.issuperset(added), uuid.uuid4().hex)
        await self._tx.set_record(KIND, id, msgspec.json.encode(after) if added else None)
        await self._tx.advance_epoch(None)
        self._known = None

    def _read(self, id: str, resource: Mapping[str, Any], others: CustomParameters) -> tuple[CustomParameter, ...]:
        try:
            return usable(resource, others)
        except ValueError as error:
            if self._refuses:
                raise Problem("unprocessable", f"The SearchParameter cannot be used: {error}.") from None
            self.unused.append((id, str(error)))
            return ()


def usable(resource: Mapping[str, Any], others: CustomParameters) -> tuple[CustomParameter, ...]:
    """What a SearchParameter adds beside ``others``.  Raises ValueError that says why it cannot be used."""
    added = parameter_definitions.read(resource)
    for one in added:
        if any(other.code == one.code and other != one for other in others.of(one.type)):
            raise ValueError(f"{one.type} already has a search parameter {one.code!r}")
    return added
