"""Rows with random histories of versions, and all that is counted of them."""

from __future__ import annotations

from random import Random

import msgspec

from fhir_server.access.version_numbers import Sight
from fhir_server.access.visible_history import VisibleHistory
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, Snapshot, Store, VersionDigest, VersionHistory
from fhir_server.store.version_summary import following
from tests.properties.version_oracle import random_history
from tests.store.samples import OBS, clause, in_job, put, record, token, visibility

Caller = tuple[Visibility, Sight | None, frozenset[str]]
CALLER: Caller = (visibility(clause("p1")), Sight(frozenset({0, 1}), frozenset(), 100), frozenset())


def visible_history_of(snapshot: Snapshot, id: str, caller: Caller) -> VisibleHistory:
    seen, sight, targets = caller

    async def shown(asked: set[str]) -> frozenset[str]:
        return targets & asked

    return VisibleHistory(snapshot, OBS, id, seen, sight, shown)


def alike(last: int, hidden: frozenset[int] = frozenset()) -> list[IndexedRow]:
    """Versions 1 to ``last`` of one row, each with a change; those in ``hidden`` have another class."""
    made: list[IndexedRow] = []
    history: VersionHistory | None = None
    for version in range(1, last + 1):
        class_id = 2 if version in hidden else 0
        history = following(history, VersionDigest(version, version * 10, class_id, 0, ((class_id, f"{version:018}"),)))
        indexed = record("a", "p1", version=version, class_id=class_id)
        made.append(msgspec.structs.replace(indexed, row=msgspec.structs.replace(indexed.row, history=history)))
    return made


async def fill_former_histories(store: Store) -> None:
    """The same rows as :func:`fill_histories`, with versions that do not say whose they are, as former ones did not."""
    await fill_histories(store, says_owners=False)


async def fill_histories(store: Store, lengths: tuple[int, ...] = (1, 2, 5, 12), patients: int = 2, *, says_owners: bool = True) -> None:
    """Rows with random histories; some end with a deletion, some have moved to another patient."""
    for seed in range(12):
        random = Random(seed)
        history: VersionHistory | None = None
        patient = ""
        for digest in random_history(random, random.choice(lengths)):
            patient = f"p{random.randrange(patients)}" if digest.digests else patient
            entries = (token("code", random.choice("xy"), class_id=digest.class_id),)
            digest = msgspec.structs.replace(digest, patients=(patient,) if says_owners else None)
            history = following(history, digest)
            indexed = record(
                f"h{seed}", patient, version=digest.version, class_id=digest.class_id, release_at=digest.release_at, entries=entries
            )
            is_plain = digest.version == 1 and not digest.release_at  # such a version is stored without a history
            row = msgspec.structs.replace(indexed.row, updated=digest.updated, history=None if is_plain else history)
            if digest.digests:
                await put(store, msgspec.structs.replace(indexed, row=row))
            else:
                await in_job(store, "delete", msgspec.structs.replace(row, interaction="delete", body=b""))


async def histories(store: Store) -> list[object]:
    """Each version with all that numbers are counted from."""
    found: list[object] = []
    async with store.snapshot() as snapshot:
        for seed in range(12):
            found += await snapshot.versions(OBS, f"h{seed}", visibility(clause(classes=range(5), released=False)))
            found += [stamp.history() for stamp in (await snapshot.stamps_unfiltered(OBS, f"h{seed}", range(1, 20))).values()]
    return found
