"""What a store records about itself for the operator: with what it was labeled, and when it was backed up."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.store import Store

_KIND: Final = "store-fact"
F = TypeVar("F", bound=msgspec.Struct)


class LabelingFact(msgspec.Struct, frozen=True, tag_field="fact", tag="labeling"):
    """All resources have labels of this :func:`~fhir_server.consent.labeling_version.labeling_digest`, or of a later one."""

    digest: str
    at: int


class BackupFact(msgspec.Struct, frozen=True, tag_field="fact", tag="backup"):
    """The last verified backup began at this instant (microseconds since 1970 UTC)."""

    at: int
    resources: int


async def record_fact(store: Store, fact: msgspec.Struct) -> None:
    """Record a fact in place of the one of its kind."""
    await store.key_values.put(_KIND, type(fact).__name__, msgspec.json.encode(fact), MAX_INSTANT)


async def find_fact(store: Store, sort: type[F]) -> F | None:
    """Return the fact of this kind; None if it was never recorded."""
    text = await store.key_values.get(_KIND, sort.__name__, 0)
    return None if text is None else msgspec.json.decode(text, type=sort)
