"""``fhir-server copy-store``: copy one store into another, then compare the two.

Copied are visibility classes, every version of every resource with its index entries, key-value records, and logs.  Not
copied are MongoDB's lock documents and the counters of the permission epoch: no server that caches permissions runs on
the copy yet.

Nothing may write to the source meanwhile.  The comparison detects it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from fhir_server.audit import LOG_NAME
from fhir_server.audit.buffer_file import buffer_files
from fhir_server.audit.entries import keys_of_line
from fhir_server.store import open_store, store_file
from fhir_server.store.copying import CopySource, CopyTarget, KeyValue, ResourceHistory, Version, copy_source, copy_target

_PAGE = 200
_LINES = 1000
_DIFFERS = "The copy differs from its source. Did something write to the source? Start again with an empty target."
_LINES_BESIDE = "A server is using the source, and its last audit lines would be missing from the copy. Stop the server first."
T = TypeVar("T")
_Key = tuple[str, str]


@dataclass(slots=True)
class StoreDigest:
    """The number of items of each sort, and a digest of all items that does not depend on their order."""

    counts: dict[str, int] = field(default_factory=dict)
    digest: int = 0

    def add(self, sort: str, value: Any) -> None:
        """Include one item."""
        self.counts[sort] = self.counts.get(sort, 0) + 1
        text = sort.encode() + b"\0" + msgspec.msgpack.encode(value)
        self.digest = (self.digest + int.from_bytes(sha256(text).digest(), "big")) % 2**256

    def __str__(self) -> str:
        counts = ", ".join([f"{count} {sort}" for sort, count in sorted(self.counts.items())])
        return f"{counts or 'nothing'}; digest {self.digest:064x}"


async def copy_store(source: str, target: str, progress: Callable[[str, int, int], None]) -> StoreDigest:
    """Copy the store at the URL ``source`` into the one at ``target``, and return the digest of both.

    The target must be empty or hold an interrupted copy of the same source, which is continued.  ``progress(step, done,
    total)`` is called after every page.  Raises ValueError, with a message for the operator, if the stores cannot be
    copied, and if they differ afterwards.
    """
    _require_no_lines_beside(source)
    source_store, target_store = open_store(source), open_store(target)
    try:
        old = copy_source(_scheme(source), source_store)
        new = copy_target(_scheme(target), target_store)
        await source_store.prepare()
        await target_store.prepare()
        return await _copy_and_compare(old, new, sha256(source.encode()).hexdigest(), progress)
    finally:
        await source_store.close()
        await target_store.close()


def _require_no_lines_beside(source: str) -> None:
    path = store_file(source)
    if path is not None and any(file.stat().st_size for file in buffer_files(path)):
        raise ValueError(_LINES_BESIDE)


def _scheme(url: str) -> str:
    return url.partition(":")[0]


async def _copy_and_compare(old: CopySource, new: CopyTarget, source_id: str, progress: Callable[[str, int, int], None]) -> StoreDigest:
    await _require_fit(old, new, progress)
    after = await new.begin(source_id)
    await new.put_classes(await old.classes())
    total, done = await old.count(), await new.count()
    async for histories in _pages(old.histories, _history_key, after):
        await new.put_histories(histories)
        done += len(histories)
        progress("Resources", done, total)
    async for records in _pages(old.key_values, _key_value_key):
        await new.put_key_values(records)
    for log in await old.log_names():
        async for lines in _log_pages(old, log):
            await new.put_log_lines(log, [(number, line, keys_of_line(line) if log == LOG_NAME else ()) for number, line in lines])
    source_digest = await digest_store(old, lambda done: progress("Checking the source", done, total))
    copy_digest = await digest_store(new, lambda done: progress("Checking the copy", done, total))
    if source_digest != copy_digest:
        raise ValueError(f"{_DIFFERS} Source: {source_digest}. Copy: {copy_digest}.")
    await new.finish()
    return copy_digest


async def _require_fit(old: CopySource, new: CopyTarget, progress: Callable[[str, int, int], None]) -> None:
    """Raise ValueError, with the names of all versions that the target cannot keep, before anything is copied."""
    names = await old.large_resources(new.unlimited)
    misfits = []
    for done, (type, id) in enumerate(names, 1):
        history = await old.history(type, id)
        sizes = {version.indexed.row.version: len(version.indexed.row.body) for version in history.versions}
        for number in new.does_not_fit(history):
            misfits.append(f"{type}/{id}, stored version {number} ({sizes[number] / 2**20:.1f} MB)")
        progress("Checking sizes", done, len(names))
    if misfits:
        raise ValueError(
            f"Nothing was copied. {len(misfits)} versions are too large for the target, which keeps at most 16 MB with the index"
            f" entries: {'; '.join(misfits)}."
        )


async def digest_store(store: CopySource, progress: Callable[[int], None]) -> StoreDigest:
    """Count and digest everything that a store holds.  ``progress(done)`` gets the number of resources read so far."""
    digest = StoreDigest()
    for numbered_key in enumerate(await store.classes()):
        digest.add("classes", numbered_key)
    done = 0
    async for histories in _pages(store.histories, _history_key):
        for history in histories:
            digest.add("resources", (history.type, history.id))
            for version in history.versions:
                digest.add("versions", _comparable_version(version))
        done += len(histories)
        progress(done)
    async for records in _pages(store.key_values, _key_value_key):
        for record in records:
            digest.add("key-value records", record)
    for log in await store.log_names():
        async for lines in _log_pages(store, log):
            for line in lines:
                digest.add("log lines", (log, line))
    return digest


def _comparable_version(version: Version) -> Any:
    """Return a version in a form that is equal for all stores: entries as a set, without the paths they come from."""
    entries = sorted({repr((entry.kind, entry.param, entry.class_id, entry.value)) for entry in version.indexed.entries})
    return version.indexed.row, entries, version.stored


async def _pages(
    read_page: Callable[[_Key, int], Awaitable[tuple[T, ...]]], key: Callable[[T], _Key], after: _Key = ("", "")
) -> AsyncIterator[tuple[T, ...]]:
    while page := await read_page(after, _PAGE):
        yield page
        after = key(page[-1])


async def _log_pages(store: CopySource, log: str) -> AsyncIterator[tuple[tuple[int, bytes], ...]]:
    last = 0
    while lines := await store.log_lines(log, last, _LINES):
        yield lines
        last = lines[-1][0]


def _history_key(history: ResourceHistory) -> _Key:
    return history.type, history.id


def _key_value_key(record: KeyValue) -> _Key:
    return record.kind, record.key
