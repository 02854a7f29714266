"""The protocols that every store implements.

A store keeps resources with their history and index, small key-value records, and append-only logs, and translates the
condition language of :mod:`fhir_server.search.filters`.  It knows no FHIR rules, no policy and no HTTP.

Methods are coroutines because MongoDB's driver is asynchronous.  The SQLite store never suspends, so do not await
anything else while one of its snapshots is open.

Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypeVar

from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, RowEntries, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store.changes import Change, ChangeRange
from fhir_server.store.logs import LinkEntries, LogEntry, PendingRecord, PurgedLine, unlinked
from fhir_server.store.rows import IndexedRow, Page, PermissionEpoch, Row
from fhir_server.store.version_history import VersionStamp

T = TypeVar("T")


class Snapshot(Protocol):
    """A consistent reading of the store at one instant.

    A method that takes a Visibility answers as if nothing outside it existed.  A method whose name ends in
    ``_unfiltered`` looks past visibility: its result must not reach a caller unchecked.
    """

    def expect_read(self, type: str, id: str, visibility: Visibility) -> None:
        """Announce that this :meth:`read` probably follows :meth:`permission_epoch`, so that a store can do both with one query.

        It changes no answer: a read with another visibility is a query of its own.
        """

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        """Return the current version if it is visible, else None.  The same as ``find`` by id, but cheaper."""

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        """Return at most ``limit`` visible rows that meet ``where``, in the order of ``sort``, then of the store.

        The order of the store is described in :mod:`~fhir_server.store.row_order`: for a visibility that is limited to
        patients, by when rows were stored; for any other, by the number of the row's first patient, then by that.

        Raises Problem ``invalid`` if ``after`` names a row that is not visible (any more).
        """

    async def count(self, type: str, where: Filter, visibility: Visibility, *, most: int | None = None) -> int:
        """Return the exact number of visible rows that meet ``where``, or ``most`` if there are more."""

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        """Return those of these references (``Type/id``) that the visibility of their type admits."""

    async def newest(self, type: str, id: str, visibility: Visibility) -> Row | None:
        """Return the newest version, which may be a deletion; None if it is hidden, or if it deletes a hidden version.

        A deletion is a Row with interaction ``delete``, the class of the version before it and an empty body.
        """

    async def newest_of(self, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]) -> dict[tuple[str, str], Row]:
        """Return what :meth:`newest` returns of each of these resources (type, id), without those of which it is None."""

    async def versions(self, type: str, id: str, visibility: Visibility, numbers: Collection[int] | None = None) -> tuple[Row, ...]:
        """Return the visible versions among those with these numbers (None: all), oldest first.

        Returns none if the newest version that is not a deletion is hidden.
        """

    async def stamps_unfiltered(self, type: str, id: str, numbers: Collection[int]) -> dict[int, VersionStamp]:
        """Return what is stored of these versions besides the resource itself, by number.

        For code that counts versions for a caller (:mod:`fhir_server.access.version_numbers`).
        """

    async def changes_unfiltered(self, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
        """Return at most ``limit`` versions of these types in the order of ``range``.

        They are those that a clause of the type's visibility may admit by the version's patients, class and release, and by id;
        further conditions are not tested, nor whether the resource still is visible.  Purged versions with which somebody's newest
        number began are among them.  For code that then asks :meth:`newest` and :meth:`versions`
        (:mod:`fhir_server.access.visible_changes`).
        """

    async def history_horizon(self) -> int:
        """Return the instant before which earlier versions are purged, also those that are still stored; 0 if none are."""

    async def with_past_unfiltered(self, after: tuple[str, str], limit: int) -> tuple[tuple[str, str], ...]:
        """Return (type, id) of at most ``limit`` resources that have stored versions before the newest, starting after ``after``.

        For maintenance.
        """

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        """Return those of these references (``Type/id``) whose newest version is a deletion, visible or not.

        For code that then asks :meth:`versions` whether the deletion is visible.
        """

    async def classes(self) -> tuple[str, ...]:
        """Return the keys of all visibility classes.  A class's id is its index here."""

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        """Return the current permission epoch of this patient, or with None one whose ``patient`` counter is 0."""

    async def types_of_unfiltered(self, patients: frozenset[str]) -> frozenset[str]:
        """Return the types that have a current row of one of these patients, visible or not.

        For code that then queries each type with a visibility.  May include types that have none.
        """

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        """Return the patients to whom the visible rows that meet ``where`` belong."""

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        """Return what visible rows of ``type`` refer to by ``param``, as far as their visible elements say; of ``among``, if given."""

    async def entries_of(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]:
        """Return at most ``limit`` visible rows that meet ``where``, in no order, with their visible entries of ``params``: (code, kind).

        Reads the index and no bodies.  Entries have no paths and no class.
        """

    async def log_lines_unfiltered(self, log: str, key: str | None, *, before: int | None, limit: int) -> tuple[tuple[int, bytes], ...]:
        """Return at most ``limit`` lines of a log with their numbers, newest first, starting before number ``before`` (None: the end).

        ``key``: only lines whose entry had this key.  For code that decides line by line what a caller may see.
        """

    async def records_unfiltered(self, kind: str, prefix: str = "", limit: int | None = None) -> tuple[tuple[str, bytes], ...]:
        """Return at most ``limit`` key-value records of this kind as (key, value), ordered by key; only keys with this prefix.

        Expired ones too, as long as they are stored.  The prefix is of ASCII characters.
        """


class Transaction(Snapshot, Protocol):
    """A Snapshot that can write.  All of its writes become visible and durable together, or none does."""

    async def prefetch(self, names: Iterable[str]) -> None:
        """Announce references (``Type/id``) that will be read one by one, so that the store can fetch them together."""

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        """Return the current version, visible or not; for a deleted resource the Row of its deletion.

        For the write path, which labels and checks.  Never for an answer.
        """

    async def read_past_unfiltered(self, type: str, id: str, first: int = 1, last: int | None = None) -> tuple[Row, ...]:
        """Return the versions from ``first`` to ``last`` (None: all) before the one that :meth:`read_unfiltered` returns, oldest first.

        For relabeling.
        """

    async def put(self, indexed: IndexedRow) -> None:
        """Store this as the current version; the version before it stays in the history.

        Raises Problem ``conflict`` unless ``version`` is one more than the stored one (deletions count; 0 if none).
        """

    async def delete(self, row: Row) -> None:
        """Store the deletion ``row`` (interaction ``delete``) and remove the current version and its entries.

        Raises Problem ``conflict`` as ``put`` does, and if there is no current version.
        """

    async def relabel(self, *versions: IndexedRow) -> None:
        """Replace the labels of stored versions of one resource, oldest first, as if they had been written with them.

        Labels are the patients, class, release, labeled elements, guarded references, history and entries.
        Body, time and interaction do not change.  The row's place in the store's order follows the new labels.

        Raises Problem ``conflict`` if one of these versions does not exist.
        """

    async def purge_versions_unfiltered(self, type: str, id: str, before: int) -> int:
        """Remove the versions of a resource that a purge removes (:mod:`~fhir_server.store.version_purge`).  Return how many."""

    async def erase_unfiltered(self, type: str, id: str) -> int:
        """Remove all versions of a resource and their entries, as if it had never been written.  Return how many there were."""

    async def referrers_unfiltered(self, target: str, params: frozenset[str] | None = None, limit: int | None = None) -> tuple[Row, ...]:
        """Return rows that refer to ``target``, each as :meth:`read_unfiltered` returns it; with ``limit`` no more.  For relabeling.

        A row refers to it if any of its versions has an index entry (of one of ``params``, as "Type.param") for it.
        The result may also hold rows of which a version had such an entry before it was relabeled.
        """

    async def referrer_names_unfiltered(
        self, targets: Collection[str], after: str = "", limit: int | None = None
    ) -> dict[str, tuple[str, ...]]:
        """Return the names (``Type/id``) of rows that refer to one of ``targets``, with patients of theirs.  For relabeling.

        The names are those after ``after``, in order, at most ``limit``.  A row refers to a target if any of its versions does.
        """

    async def referred_names_unfiltered(self, names: Collection[str], params: frozenset[str]) -> frozenset[str]:
        """Return what any version of the rows ``names`` refers to by one of ``params`` ("Type.param").  For relabeling."""

    async def set_record(self, kind: str, key: str, value: bytes | None) -> None:
        """Store a key-value record that does not expire, or remove it (None), with this transaction."""

    async def intern_class(self, key: str) -> int:
        """Return the id of the visibility class with this key; a new class gets the next id."""

    def log_at_commit(self, log: str, entry: LogEntry, link: LinkEntries, record: PendingRecord) -> LogEntry | None:
        """Store an entry of a log when this transaction commits, so that both are stored or neither is.

        Returns None if the transaction appends it.  Else it returns the entry for :meth:`Store.append_log` after the commit: with
        the id of a pending record that the transaction stores meanwhile, or without one if there is no write to store it with.
        """

    async def advance_epoch(self, patient: str | None) -> None:
        """Increment this patient's counter of the permission epoch, or with None the ``security`` counter."""


class KeyValueRecord(NamedTuple):
    """A record of the :class:`KeyValueStore`."""

    kind: str
    key: str
    value: bytes
    expires: int
    family: str = ""


class KeyValueStore(Protocol):
    """Small records by kind and key, with an expiry: codes, tokens, sessions, users, clients, keys, export jobs, attempts.

    Keys of secrets are digests.  ``family`` groups records that are deleted together (a token family, for example).
    ``now`` is the clock by which :meth:`put_if_absent` decides what has expired.  The code that opens the store sets it.
    """

    now: Callable[[], int]

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        """Store the record; return False and store nothing if the key exists and has not expired at ``now()``."""

    async def get(self, kind: str, key: str, now: int) -> bytes | None:
        """Return the value; None if the key does not exist or has expired at ``now``."""

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        """Remove the record and return its value, atomically: of concurrent callers only one gets it."""

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        """Store the record, or replace the one with this key."""

    async def exchange(self, kind: str, key: str, now: int, records: Sequence[KeyValueRecord]) -> bool:
        """Remove a record and store others, in one atomic step: of concurrent callers only one succeeds.

        Return False and change nothing if the record does not exist or has expired at ``now``.
        """

    async def replace_value(self, kind: str, key: str, old: bytes, new: bytes, expires: int | None = None) -> bool:
        """Give the record another value, and another expiry if given; the family stays.

        Return False and change nothing unless its value is ``old``.
        """

    async def delete_family(self, family: str) -> None:
        """Remove all records of this family, of every kind, and increment the ``security`` counter."""

    async def delete_kinds(self, kinds: Collection[str]) -> dict[str, int]:
        """Remove all records of these kinds, and increment the ``security`` counter.  Return how many there were, by kind."""

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]:
        """Return (key, value) of all records of this kind that have not expired at ``now``, ordered by key."""

    async def list_family(self, kind: str, family: str, now: int) -> tuple[tuple[str, bytes], ...]:
        """Return (key, value) of this kind's records of one family that have not expired at ``now``, ordered by key.

        Reads records of that family only.
        """

    async def list_page(self, kind: str, now: int, skip: int, limit: int) -> tuple[int, tuple[tuple[str, bytes], ...]]:
        """Return how many records :meth:`list_all` lists, and at most ``limit`` of them after the first ``skip``."""

    async def purge(self, now: int) -> None:
        """Remove all records that have expired at ``now``."""


class Store(Protocol):
    """Resources with their history and index, key-value records, and logs."""

    key_values: KeyValueStore

    async def prepare(self) -> None:
        """Prepare the store for its first use.

        Raises ValueError, with a message for the operator, if the database cannot give the guarantees of this
        interface, OSError if it cannot be reached.
        """

    async def latest_time(self) -> int:
        """Return an instant that no server's clock should be behind: that of the newest row, or of the database server's clock."""

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Open a snapshot of the store as it is now."""

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``job`` in a transaction and return its result once the transaction is durable.

        The job may run on another thread, more than once, and in one commit with other jobs.  It must await nothing
        but the transaction.  If it raises, none of its writes is stored.
        """

    async def append_log(self, log: str, entries: Iterable[LogEntry], link: LinkEntries = unlinked) -> tuple[LogEntry, ...]:
        """Append entries to the log of this name, in order.  They are durable when this returns.

        Pending records of entries are removed in the same transaction.  An entry whose record is gone was appended before, and is
        left out: so each is appended once, whoever does it.  Returns those that were left out.

        Raises what ``link`` raises, and Problem ``busy`` if nothing can be written now; then nothing was appended.
        """

    async def purge_log(self, log: str, purged: Sequence[PurgedLine], entry: LogEntry, link: LinkEntries) -> None:
        """Remove the first lines of a log, which must be exactly these, and append an entry that says so, in one transaction.

        Raises Problem ``conflict``, and changes nothing, if the log's first lines are others; also what ``append_log`` raises.
        """

    async def pending_entries(self, log: str, after: str = "", limit: int = 1000) -> tuple[tuple[str, bytes], ...]:
        """Return (id, content) of at most ``limit`` pending records of a log, ordered by id, starting after ``after``."""

    async def discard_pending(self, log: str, ids: Collection[str]) -> None:
        """Remove pending records, whose entries are not appended."""

    async def read_log(self, log: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        """Return at most ``limit`` lines of a log with their numbers, which increase, starting after number ``after``."""

    async def close(self) -> None:
        """Finish what is queued and close all connections."""


def system_now() -> int:
    """Return the system's time in microseconds since 1970 UTC."""
    return time.time_ns() // 1000
