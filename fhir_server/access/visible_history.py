"""The versions of one resource as a caller counts them: one of them by its number, or a page of them, newest first.

Only the versions that are asked for are read.  The newest version says how many the caller counts, and with which stored version
the caller's newest one began; that one says the same of those before it, and so on.  A number further back is looked for with
:data:`_PROBES` stored versions at a time.

What is read, and how often, must not tell a caller how many versions are hidden from her.  So what is kept of versions is read in
windows of a fixed size, and a search for a number takes at least :data:`_ROUNDS` rounds, enough to pass over 1,000 hidden versions.

Where versions were purged by age, a caller sees the newest number, and those whose time, as the caller sees it, is not before the
horizon.  That does not depend on which versions are still stored, which would tell of hidden ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from fhir_server.access import version_numbers
from fhir_server.access.version_numbers import Counted, Sight
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Snapshot, VersionHistory, VersionStamp

_PROBES: Final = 32
_ROUNDS: Final = 2
_WINDOW: Final = 16  # versions of which more is read than a page shows, besides twice the page
_SCANNED: Final = 16  # versions read at once to find a visible one among those with one number

Shown = Callable[[set[str]], Awaitable[frozenset[str]]]


class NumberedPage(NamedTuple):
    """Rows, newest first, and the number of the last of them.

    ``older``: the row before them (None: there is none).  ``total``: how many there are in all (None: unknown without reading them).
    """

    rows: list[Row]
    last: int
    older: Row | None
    total: int | None


class VisibleHistory:
    """The versions of ``type/id`` under this visibility.

    ``sight``: what the caller sees, except for the rows that guard parts, which ``shown`` looks up; None: the caller counts
    versions as they are stored.
    """

    def __init__(self, snapshot: Snapshot, type: str, id: str, visibility: Visibility, sight: Sight | None, shown: Shown) -> None:
        self._snapshot = snapshot
        self._key = type, id
        self._visibility = visibility
        self._sight = sight
        self._shown = shown
        self._looked_up: set[str] = set()
        self._window: dict[int, VersionStamp] = {}
        self._horizon = 0
        self._first = 1  # the version from which on the resource belongs to whose rows the caller sees
        self._newest: tuple[Row, Counted] | None = None
        self._is_read = False

    async def find(self, number: int) -> Row | None:
        """The version with this number; None if there is none, if it is purged, or if nothing of the resource is visible."""
        read = await self._read_newest()
        if read is None:
            return None
        newest, top = read
        first = await self._beginning(number, newest, top)
        kept = await self._kept([(number, first)] if first else [], top)
        return (await self._read(kept, newest, top)).get(number)

    async def page(self, limit: int, before: int | None = None) -> NumberedPage | None:
        """At most ``limit`` versions, from the newest on, or from the one before number ``before``; None: nothing is visible."""
        read = await self._read_newest()
        if read is None:
            return None
        newest, top = read
        number = top.number if before is None else min(before - 1, top.number)
        first = await self._beginning(number, newest, top)
        found: dict[int, Row] = {}
        while first and len(found) <= limit:
            beginnings, number, first = await self._walk(number, first, limit + 1 - len(found), 2 * limit + _WINDOW)
            kept = await self._kept(beginnings, top)
            found |= await self._read(kept, newest, top)
            if len(kept) < len(beginnings):
                break
        numbers, rows = [*found][:limit], [*found.values()]
        total = len(rows) if before is None and len(rows) <= limit else await self._total(top.number)
        return NumberedPage(rows[:limit], numbers[-1] if numbers else 0, rows[limit] if len(rows) > limit else None, total)

    async def give(self, newest: Row | None, horizon: int) -> None:
        """Take over what was read of several resources together: the newest version if it is visible, and the horizon."""
        self._horizon = horizon
        self._newest = (newest, await self._count_row(newest)) if newest is not None else None
        self._is_read = True

    async def _read_newest(self) -> tuple[Row, Counted] | None:
        """The newest version and how the caller counts it; None if nothing is visible."""
        if not self._is_read:
            newest = await self._snapshot.newest(*self._key, self._visibility)
            if newest is not None:
                self._horizon = await self._snapshot.history_horizon()
                self._newest = newest, await self._count_row(newest)
            self._is_read = True
        return self._newest

    async def number_of(self, version: int, updated: int, stamp: VersionStamp | None) -> int | None:
        """The number that begins with this stored version, or with this purged one; None if the caller sees no such number."""
        read = await self._read_newest()
        if read is None:
            return None
        if version == read[1].version:
            return read[1].number
        if stamp is None or updated < self._horizon:
            return None
        if self._sight is None:
            return version
        counted = await self._count_stamp(stamp)
        return counted.number if counted.version == version else None

    async def row_of(self, number: int, first: int) -> Row | None:
        """The row with this number, which begins with the stored version ``first``."""
        read = await self._read_newest()
        if read is None or first == read[0].version:
            return read[0] if read else None
        return (await self._read([(number, first)], *read)).get(number)

    async def end_of(self, number: int) -> int | None:
        """When the next number began; None if this is the newest."""
        read = await self._read_newest()
        if read is None or number + 1 == read[1].number:
            return read[1].updated if read else None
        following = await self._beginning(number + 1, *read)
        stamps = await self._snapshot.stamps_unfiltered(*self._key, (following,)) if following is not None else {}
        return stamps[following].updated if following in stamps else None

    async def older_than(self, number: int, first: int) -> Row | None:
        """The row with the greatest number before this one, which begins with the stored version ``first``."""
        read = await self._read_newest()
        before = await self._beginning_before(first, _WINDOW) if read and number > 1 else None
        number -= 1
        while read and before:
            beginnings, number, before = await self._walk(number, before, 1, _WINDOW)
            kept = await self._kept(beginnings, read[1])
            rows = await self._read(kept, *read)
            if rows or not kept:
                return next(iter(rows.values()), None)
        return None

    async def _total(self, counted: int) -> int | None:
        """How many there are, for a caller from whom nothing can be hidden.

        A restriction, or another patient in an earlier version, may hide one that others count, and they must not learn of either.
        """
        conditional = any(clause.where is not EVERYTHING for clause in self._visibility.clauses)
        if self._sight is not None or conditional:
            return None
        low, high = 1, counted  # the oldest number that is not purged is among these
        while self._horizon and low < high:
            probes = sorted({low + (high - low) * step // _PROBES for step in range(_PROBES)})
            stamps = await self._snapshot.stamps_unfiltered(*self._key, probes)
            gone = [probe for probe in probes if probe not in stamps or stamps[probe].updated < self._horizon]
            low = max(gone, default=low - 1) + 1
            high = min([probe for probe in probes if probe not in gone], default=high)
        return counted - low + 1

    async def _kept(self, beginnings: list[tuple[int, int]], top: Counted) -> list[tuple[int, int]]:
        """Those of these numbers, newest first, that are not purged: the newest one, and those that begin at the horizon or later."""
        if not self._horizon:
            return beginnings
        older = [first for number, first in beginnings if number != top.number]
        stamps = await self._snapshot.stamps_unfiltered(*self._key, older)
        kept = {first for first in older if first in stamps and stamps[first].updated >= self._horizon}
        return [(number, first) for number, first in beginnings if number == top.number or first in kept]

    async def _walk(self, number: int, first: int | None, limit: int, window: int) -> tuple[list[tuple[int, int]], int, int | None]:
        """The next (number, stored version with which it begins), and where to go on."""
        beginnings: list[tuple[int, int]] = []
        while first and len(beginnings) < limit:
            beginnings.append((number, first))
            number -= 1
            first = await self._beginning_before(first, window) if number > 0 else None
        return beginnings, number, first

    async def _beginning_before(self, version: int, window: int) -> int | None:
        """The stored version with which the number before that of ``version`` begins; None if it is no longer kept."""
        if self._sight is None:
            return version - 1
        if version not in self._window:
            self._window = await self._snapshot.stamps_unfiltered(*self._key, range(max(1, version - window), version + 1))
        history = self._window[version].history() if version in self._window else None
        return version_numbers.count_earlier(history, await self._sight_of(history)).version if history else None

    async def _read(self, beginnings: list[tuple[int, int]], newest: Row, top: Counted) -> dict[int, Row]:
        """The visible row for each number that has one."""
        firsts = [first for _, first in beginnings]
        rows = {row.version: row for row in await self._snapshot.versions(*self._key, self._visibility, firsts)} if firsts else {}
        if self._horizon:
            rows.setdefault(top.version, newest)  # the version with which the newest number begins may be purged
        found = {number: rows.get(first) or await self._alike(number, first) for number, first in beginnings}
        return {number: row for number, row in found.items() if row is not None}

    async def _alike(self, number: int, first: int) -> Row | None:
        """The first visible version after ``first``, which a condition hides, that has the same number."""
        while self._sight is not None:
            following = range(first + 1, first + 1 + _SCANNED)
            for row in await self._snapshot.versions(*self._key, self._visibility, following):
                return row if (await self._count_row(row)).number == number else None
            if following[-1] not in await self._snapshot.stamps_unfiltered(*self._key, following[-1:]):
                break
            first = following[-1]
        return None

    async def _beginning(self, number: int, newest: Row, top: Counted) -> int | None:
        """The stored version with which a number begins; None if there is no such number, or it is no longer kept."""
        if not 0 < number <= top.number:
            return None
        if self._sight is None:
            return number
        found = top.version if number == top.number else None
        low, high = number, top.version - 1
        rounds = 0
        while number != top.number and ((found is None and low <= high) or rounds < _ROUNDS):
            probes = sorted({low + (high - low) * step // _PROBES for step in range(_PROBES + 1)}) if low <= high else [number]
            stamps = await self._snapshot.stamps_unfiltered(*self._key, probes)
            at = 0 if rounds == 0 else len(probes) // 2  # mostly nothing is hidden, and a number is that of the stored version
            while found is None and probes:
                counted = await self._count_stamp(stamps.get(probes[at]))
                if counted.number == number:
                    found = counted.version
                elif counted.number < number:
                    low = probes[at] + 1
                else:
                    high = counted.version - 1
                probes = [probe for probe in probes if low <= probe <= high]
                at = len(probes) // 2
            rounds += 1
        return found

    async def _count_row(self, row: Row) -> Counted:
        """A visible row as the caller counts it."""
        if self._sight is None or row.history is None:
            return Counted(row.version if self._sight is None else 1, row.version, row.updated)
        self._first = max(self._first, row.history.first_of(self._sight.patients))
        return version_numbers.count(row.history, await self._sight_of(row.history), is_visible=True)

    async def _count_stamp(self, stamp: VersionStamp | None) -> Counted:
        """The caller's newest version among a stored one and those before it."""
        if stamp is None or stamp.version < self._first:
            return Counted(0, 0, 0)
        history = stamp.history()
        if history is not None:
            return version_numbers.count(history, await self._sight_of(history))
        if self._sight is None or not self._sight.sees(stamp.class_id, stamp.release_at):
            return Counted(0, 0, 0)
        return Counted(1, stamp.version, stamp.updated)

    async def _sight_of(self, history: VersionHistory) -> Sight:
        """What the caller sees, with the rows on which the numbers in this history depend."""
        if self._sight is None:
            raise ValueError("This caller counts versions as they are stored.")
        targets = set(version_numbers.guards(history)) - self._looked_up
        if targets:
            self._looked_up |= targets
            self._sight = self._sight._replace(shown=self._sight.shown | await self._shown(targets))
        return self._sight
