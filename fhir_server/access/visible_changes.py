"""The history of a type, or of several: what the caller sees in the histories of all their resources, in the order of time.

A store gives the versions that the caller may see, in order, without reading those that are hidden by their class, release or patient.
Each is then asked of its resource's :class:`~fhir_server.access.visible_history.VisibleHistory`: whether a number of the caller's begins
with it, and which row has that number.  So the entries are those of the histories of single resources, with the same numbers and times.

A page is always full if there is more: what was passed over does not show.  How long it takes does depend on versions that the caller
may see and that are no entry: of which only a labeled element changed, or that a further condition hides, or of resources of which the
newest version has another class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fhir_server import budget
from fhir_server.access.visible_history import VisibleHistory
from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search.rows import STALE_LINK, Position
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Snapshot
from fhir_server.store.changes import Change, ChangeKey, ChangeRange, at_or_after

_SCANNED: Final = 16  # versions that are read beyond a page at once, besides twice the page
_TOGETHER: Final = 16  # resources of which the newest version is read together
_MILLISECOND: Final = 1000  # times are shown, and compared, in milliseconds


@dataclass(frozen=True, slots=True)
class HistoryPeriod:
    """Which versions of a history are wanted, and in which order; instants in microseconds.

    ``since``      from when on they were made
    ``current``    the instants [from, until) at one of which they were current; None: any
    ``ascending``  oldest first
    """

    since: int = 0
    current: tuple[int, int] | None = None
    ascending: bool = False

    def range(self, after: ChangeKey | None) -> ChangeRange:
        """The stored versions among which they are."""
        until = MAX_INSTANT if self.current is None else _whole(self.current[1])
        return ChangeRange(_whole(self.since), until, self.ascending, after)


def _whole(instant: int) -> int:
    """The first whole millisecond from this instant on."""
    return -(-instant // _MILLISECOND) * _MILLISECOND


class EntryKey(NamedTuple):
    """An entry of a history: its time, type, id and number as the caller sees them."""

    updated: int
    type: str
    id: str
    number: int

    def position(self) -> Position:
        """The position of a page that ends with this entry."""
        return Position((self.updated, self.type, self.number), self.id)


def entry_key(position: Position) -> EntryKey:
    """The entry with which a page ended.  Raises Problem ``invalid``."""
    match position.keys:
        case (int(updated), str(type), int(number)):
            return EntryKey(updated, type, position.id, number)
    raise Problem("invalid", STALE_LINK)


class Entry(NamedTuple):
    """An entry of a history; ``older``: the row of the number before it, if the caller sees one."""

    key: EntryKey
    row: Row
    older: Row | None


@dataclass
class VisibleChanges:
    """The histories of the types of ``visibilities``.  ``history(type, id)``: that of one resource.

    ``with_older``: whether the number before each entry is wanted.
    """

    snapshot: Snapshot
    visibilities: Mapping[str, Visibility]
    history: Callable[[str, str], VisibleHistory]
    with_older: bool = True
    _histories: dict[tuple[str, str], VisibleHistory] = field(default_factory=dict)
    _horizon: int | None = None

    async def page(self, limit: int, period: HistoryPeriod, after: EntryKey | None = None) -> list[Entry]:
        """The first ``limit`` entries of the period, or those after the entry ``after``; fewer if there are no more."""
        start = at_or_after(after.updated, after.type, after.id, ascending=period.ascending) if after else None
        range = period.range(start)
        scanned = 2 * limit + _SCANNED
        found: list[Entry] = []
        while limit > 0:
            changes = await self.snapshot.changes_unfiltered(self.visibilities, scanned, range)
            for number, change in enumerate(changes):
                if number % _TOGETHER == 0:
                    await self._read_newest(changes[number : number + _TOGETHER])
                entry = await self._entry(change, period, after)
                if entry is not None:
                    found.append(entry)
                    if len(found) == limit:
                        return found
                await budget.give_way()
            if len(changes) < scanned:
                break
            range = range.starting_after(changes[-1].key)
        return found

    async def _read_newest(self, changes: Sequence[Change]) -> None:
        """Read the newest versions of the resources that some versions belong to, together."""
        if self._horizon is None:
            self._horizon = await self.snapshot.history_horizon()
        names = [name for name in dict.fromkeys([(change.key.type, change.key.id) for change in changes]) if name not in self._histories]
        newest = await self.snapshot.newest_of(names, self.visibilities)
        for name in names:
            self._histories[name] = self.history(*name)
            await self._histories[name].give(newest.get(name), self._horizon)

    async def _entry(self, change: Change, period: HistoryPeriod, after: EntryKey | None) -> Entry | None:
        updated, type, id, version = change.key
        history = self._histories[type, id]
        number = await history.number_of(version, updated, change.stamp)
        if number is None or not _is_later(EntryKey(updated, type, id, number), after, ascending=period.ascending):
            return None
        if period.current is not None and updated // _MILLISECOND * _MILLISECOND <= period.current[0]:
            ended = await history.end_of(number)
            if ended is not None and ended // _MILLISECOND * _MILLISECOND <= period.current[0]:
                return None
        row = await history.row_of(number, version)
        if row is None:
            return None
        older = await history.older_than(number, version) if self.with_older else None
        return Entry(EntryKey(updated, type, id, number), row, older)


def _is_later(key: EntryKey, after: EntryKey | None, *, ascending: bool) -> bool:
    """Whether an entry comes after another one of the same resource and time."""
    if after is None or key[:3] != after[:3]:
        return True
    return key.number > after.number if ascending else key.number < after.number
