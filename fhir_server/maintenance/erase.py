"""``fhir-server erase``: removes one patient's record for good, with all versions, and says in a report what was removed.

Removed is what belongs to this patient alone.  Resources that belong to others too remain, and so does what the law wants kept: the
audit log.  The report names both.  Labels that other resources have inherited from the record stay, so that nothing is shown because
a resource was erased; references to erased resources lead nowhere, as those to hidden ones do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from fhir_server.audit import LOG_NAME
from fhir_server.clock import instant_text
from fhir_server.maintenance.remnants import remove_remnants
from fhir_server.smart.accounts import users
from fhir_server.store import Store, Transaction
from fhir_server.store.copying import CopySource, ResourceHistory, copy_source
from fhir_server.writing.indexing_steps import begin_again

_PAGE: Final = 200
_BATCH: Final = 100  # resources erased in one transaction
_Name = tuple[str, str]  # type and id
_BACKUPS: Final = "Backups that were made before hold the record. Erase it again after a restore."


class ErasedResource(msgspec.Struct, frozen=True):
    """One erased resource: the number of its versions, and the SHA-256 of their texts, oldest first, each after a zero byte."""

    resource: str
    versions: int
    sha256: str


class ErasureReport(msgspec.Struct, frozen=True):
    """The proof.  ``digest``: the SHA-256 of the list ``erased`` as JSON.  ``verified``: a second look found nothing of the record."""

    record: str
    reason: str
    at: str
    erased: list[ErasedResource]
    counts: dict[str, int]
    digest: str
    verified: bool
    shared_with_others: list[str]
    referring: list[str]
    accounts: list[str]
    audit_lines: int
    remains: list[str]


async def erase_record(store: Store, url: str, patient: str, reason: str, now: int) -> ErasureReport:
    """Erase the record of the patient with this id.  Safe to interrupt and to start again; the reports together are the proof then.

    The Patient goes first: without it, no policy admits anybody to the rest.  Consents, which may restrict, go last.
    Raises ValueError, with a message for the operator, if there is nothing to erase.
    """
    source = copy_source(url.partition(":")[0], store)
    found = await _find(source, patient)
    if not found.own:
        raise ValueError(f"There is nothing that belongs to Patient/{patient} alone.")
    names = sorted(found.own, key=lambda name: ({"Patient": 0, "Consent": 2}.get(name[0], 1), name))
    erased: list[ErasedResource] = []
    for start in range(0, len(names), _BATCH):
        erased += await _erase(store, names[start : start + _BATCH], found.own, patient)
    left = await _find(source, patient)
    remnants = await remove_remnants(store, url)
    counts: dict[str, int] = {}
    for one in erased:
        type = one.resource.partition("/")[0]
        counts[type] = counts.get(type, 0) + 1
    return ErasureReport(
        f"Patient/{patient}",
        reason,
        instant_text(now),
        erased,
        counts,
        sha256(msgspec.json.encode(erased)).hexdigest(),
        not left.own,
        ["/".join(name) for name in left.shared],
        ["/".join(name) for name in left.referring],
        sorted(user.username for user in await users.list_all(store) if user.patient == patient),
        await _count_audit_lines(store, patient),
        [_BACKUPS, *([remnants] if remnants else [])],
    )


class _Found(NamedTuple):
    """What has to do with a patient: the resources that belong to nobody else, with the digest of their versions; those that belong or
    belonged to others too; and others that refer to the Patient."""

    own: dict[_Name, str]
    shared: list[_Name]
    referring: list[_Name]


async def _find(source: CopySource, patient: str) -> _Found:
    found = _Found({}, [], [])
    async for history in _histories(source):
        name = history.type, history.id
        patients = {one for version in history.versions for one in version.indexed.row.patients}
        if patients == {patient}:
            found.own[name] = sha256(b"".join(b"\0" + version.indexed.row.body for version in history.versions)).hexdigest()
        elif patient in patients:
            found.shared.append(name)
        elif any(entry.value == (f"Patient/{patient}",) for version in history.versions for entry in version.indexed.entries):
            found.referring.append(name)
    return found


async def _histories(source: CopySource) -> AsyncIterator[ResourceHistory]:
    after = ("", "")
    while page := await source.histories(after, _PAGE):
        for history in page:
            yield history
        after = page[-1].type, page[-1].id


async def _erase(store: Store, names: Sequence[_Name], digests: Mapping[_Name, str], patient: str) -> list[ErasedResource]:
    """Erase these resources in one transaction."""

    async def erase(transaction: Transaction) -> list[int]:
        counts = [await transaction.erase_unfiltered(*name) for name in names]
        await begin_again(transaction)
        await transaction.advance_epoch(patient)
        await transaction.advance_epoch(None)
        return counts

    counts = await store.write(erase)
    return [ErasedResource("/".join(name), count, digests[name]) for name, count in zip(names, counts, strict=True)]


async def _count_audit_lines(store: Store, patient: str) -> int:
    named, count, after = f'"Patient/{patient}"'.encode(), 0, 0
    while lines := await store.read_log(LOG_NAME, after):
        count += sum(named in line for _, line in lines)
        after = lines[-1][0]
    return count
