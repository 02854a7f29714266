"""``fhir-server migrate``: one store copied into another, then compared with it.

Copied are visibility classes, every version of every resource with its index entries, secrets, and journals.  Not copied
are the counters that end plans cached in running servers, for none runs on the copy yet, and MongoDB's locks.

Nothing may write to the source meanwhile: the comparison would show it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from fhir_server.store import Store, open_store
from fhir_server.store.copying import CopySource, CopyTarget, KeyValue, ResourceHistory, copy_source, copy_target

_PAGE = 200
_LINES = 1000
_DIFFERS = "The copy differs from its source. Was that written to? Start afresh, with an empty target."
T = TypeVar("T")
_Place = tuple[str, str]


@dataclass(slots=True)
class StoreDigest:
    """How much of each sort there is, and a digest that does not depend on the order."""

    counts: dict[str, int] = field(default_factory=dict)
    digest: int = 0

    def add(self, sort: str, value: Any) -> None:
        self.counts[sort] = self.counts.get(sort, 0) + 1
        text = sort.encode() + b"\0" + msgspec.msgpack.encode(value)
        self.digest = (self.digest + int.from_bytes(sha256(text).digest(), "big")) % 2**256

    def __str__(self) -> str:
        counted = ", ".join([f"{count} {sort}" for sort, count in sorted(self.counts.items())])
        return f"{counted or 'nothing'}; digest {self.digest:064x}"


async def copy_store(source: str, target: str, progress: Callable[[str, int, int], None]) -> StoreDigest:
    """Copy the store at the URL ``source`` into the one at ``target``, which is empty or holds the beginning of this copy.

    ``progress(what, done, of)`` is told how far it is.  Raises ValueError, worded for the operator, for stores that cannot
    be so copied, and if they differ afterwards.
    """
    old, new = open_store(source), open_store(target)
    try:
        return await _copy_pages(copy_source(_scheme(source), old), old, copy_target(_scheme(target), new), new, source, progress)
    finally:
        await old.close()
        await new.close()


def _scheme(url: str) -> str:
    return url.partition(":")[0]


async def _copy_pages(
    old: CopySource, from_: Store, new: CopyTarget, into: Store, source: str, progress: Callable[[str, int, int], None]
) -> StoreDigest:
    await from_.prepare()
    await into.prepare()
    after = await new.begin(sha256(source.encode()).hexdigest())
    await new.put_classes(await old.classes())
    total, done = await old.count(), await new.count()
    async for lives in _pages(old.histories, _digest_history, after):
        await new.put_histories(lives)
        done += len(lives)
        progress("Resources", done, total)
    async for secrets in _pages(old.key_values, _digest_key_value):
        await new.put_key_values(secrets)
    for journal in await old.journals():
        async for lines in _lines(old, journal):
            await new.put_lines(journal, lines)
    was = await digest_store(old, lambda done: progress("Checking the source", done, total))
    now = await digest_store(new, lambda done: progress("Checking the copy", done, total))
    if was != now:
        raise ValueError(f"{_DIFFERS} Source: {was}. Copy: {now}.")
    await new.finish()
    return now


async def digest_store(whole: CopySource, progress: Callable[[int], None]) -> StoreDigest:
    """All that a store holds, counted and digested."""
    found = StoreDigest()
    for key in enumerate(await whole.classes()):
        found.add("classes", key)
    done = 0
    async for lives in _pages(whole.histories, _digest_history):
        for life in lives:
            found.add("resources", (life.type, life.id))
            for version in life.versions:
                found.add("versions", _comparable(version))
        done += len(lives)
        progress(done)
    async for secrets in _pages(whole.key_values, _digest_key_value):
        for secret in secrets:
            found.add("secrets", secret)
    for journal in await whole.journals():
        async for lines in _lines(whole, journal):
            for line in lines:
                found.add("journal lines", (journal, line))
    return found


def _comparable(version: Any) -> Any:
    """A version in a form that two stores have in common: entries are a set, and lose the path they were made from."""
    entries = sorted({repr((one.kind, one.param, one.class_id, one.value)) for one in version.record.entries})
    return version.record.row, entries, version.stored


async def _pages(
    ask: Callable[[_Place, int], Awaitable[tuple[T, ...]]], place: Callable[[T], _Place], after: _Place = ("", "")
) -> AsyncIterator[tuple[T, ...]]:
    while page := await ask(after, _PAGE):
        yield page
        after = place(page[-1])


async def _lines(whole: CopySource, journal: str) -> AsyncIterator[tuple[tuple[int, bytes], ...]]:
    last = 0
    while lines := await whole.lines(journal, last, _LINES):
        yield lines
        last = lines[-1][0]


def _digest_history(life: ResourceHistory) -> tuple[str, str]:
    return life.type, life.id


def _digest_key_value(secret: KeyValue) -> tuple[str, str]:
    return secret.kind, secret.key
