"""WHERE it lives: the port every store implements, and :func:`open_store`.

A store is a place to put bytes plus a translator of the condition language; it knows nothing of FHIR rules,
policy or HTTP.  Methods are coroutines because MongoDB's driver is asynchronous; the SQLite store answers
without ever suspending, so a snapshot of it must not be held across a real wait.

Times are microseconds since 1970 UTC.  ``clock.MAX_INSTANT`` as a release instant means "not until someone releases it".
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol, TypeVar

import msgspec

from fhir_server.jsontext import Path
from fhir_server.search.filters import Filter
from fhir_server.search.visibility import Entry, Position, SortKey, Visibility

T = TypeVar("T")


class LabeledElement(msgspec.Struct, frozen=True, array_like=True):
    """A part of a resource with a class of its own: seen, and searchable, only where that class is admitted."""

    path: Path
    class_id: int


class GuardedReference(msgspec.Struct, frozen=True, array_like=True):
    """A literal reference at ``path`` to a row that not every caller sees; shown only while its target is."""

    path: Path
    target: str


class VersionDigest(msgspec.Struct, frozen=True, array_like=True):
    """One version as the callers of a view count versions: enough to number them without reading bodies.

    ``digests`` maps the class of each part of the body (the row's own, and each facet's) to a digest of that part;
    ``guarded_references`` are the version's references to rows not everybody sees, in order, each with the member it stands in.
    """

    version: int
    updated: int
    class_id: int
    release_at: int
    digests: tuple[tuple[int, str], ...]
    guarded_references: tuple[tuple[str, str], ...] = ()


class Row(msgspec.Struct, frozen=True):
    """A stored current version (or, from :meth:`Snapshot.versions`, an old one), body as served to a trusted caller."""

    type: str
    id: str
    version: int
    updated: int
    patients: tuple[str, ...]
    class_id: int
    release_at: int
    body: bytes
    labeled_elements: tuple[LabeledElement, ...] = ()
    guarded_references: tuple[GuardedReference, ...] = ()
    version_digests: tuple[VersionDigest, ...] = ()  # all versions up to this one, oldest first; () stands for "only this one"
    interaction: Literal["create", "update", "delete"] = "create"


class IndexedRow(msgspec.Struct, frozen=True):
    """A version about to be written: a Row and its index entries."""

    row: Row
    entries: tuple[Entry, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """Rows in order, and where to go on from (None: these were the last).

    ``total``: how many rows meet the condition in all, as ``count`` says, where the store came to know it; else None.
    """

    rows: tuple[Row, ...]
    next: Position | None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class PermissionEpoch:
    """Counters that move when something a cached plan depends on has changed (never shown outside)."""

    security: int  # accounts, clients, token revocation
    patient: int  # this patient's grants, birth date, death, links
    classes: int  # how many visibility classes there are


class Snapshot(Protocol):
    """One consistent reading of the store.  Every method that takes a Visibility answers as if nothing outside it existed."""

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        """The row, if the sight admits it: ``find`` by id, made cheap."""

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        """At most ``limit`` rows that meet ``where``, in the order of ``sort`` and then of :mod:`~fhir_server.store.row_order`:
        for a bounded sight by when rows were stored, for another by the number of their first patient and then by that.

        Raises Problem ``invalid`` if ``after`` names a row that the sight does not (any longer) admit.
        """

    async def count(self, type: str, where: Filter, visibility: Visibility) -> int:
        """How many rows meet ``where``, exactly."""

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        """Those of these ``Type/id`` that the sight of their type admits."""

    async def versions(self, type: str, id: str, visibility: Visibility) -> tuple[Row, ...]:
        """All versions, oldest first, that the sight admits, provided it admits the newest not-deleting one too.

        A deletion is a Row with interaction ``delete``, the class of the version before it and an empty body.
        """

    async def classes(self) -> tuple[str, ...]:
        """Every visibility class's key; its number is its place, from 0."""

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch: ...

    async def types_of(self, patients: frozenset[str]) -> frozenset[str]:
        """The types of which there is a current row of one of these patients, in view or not: for what asks type by type."""

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        """The patients to whom the rows that meet ``where`` belong."""


class Transaction(Snapshot, Protocol):
    """A Snapshot that can write; everything written in it becomes visible, and durable, at once or not at all."""

    async def prefetch(self, names: Iterable[str]) -> None:
        """Be told of ``Type/id`` that will be asked for one by one, to fetch them at once if that is dear."""

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        """The row whatever its class (for the write path, which labels and guards; never for an answer).

        For a deleted row: the Row of its deletion, interaction ``delete``.
        """

    async def read_past_unfiltered(self, type: str, id: str) -> tuple[Row, ...]:
        """All versions before the one that :meth:`current` gives, oldest first, whatever their class; for relabelling."""

    async def put(self, record: IndexedRow) -> None:
        """Make this the current version and keep the one before in the history.

        Raises Problem ``conflict`` unless ``version`` is one more than the stored one (deletions count; 0 if none).
        """

    async def delete(self, row: Row) -> None:
        """Write the deletion ``row`` (interaction ``delete``) and take the current version and its entries away.

        Raises Problem ``conflict`` as ``put`` does, and if there is no current version.
        """

    async def relabel(self, record: IndexedRow) -> None:
        """Replace patients, class, release, facets, pointers, eras and entries of a version, current or earlier, as if it had
        been written with them; its body, time and interaction stay.  The row's place follows.

        Raises Problem ``conflict`` if there is no such version.
        """

    async def referrers(self, target: str, params: frozenset[str] | None = None) -> tuple[Row, ...]:
        """Rows of which any version has an index entry (of one of ``params``, as "Type.param") that refers to ``target``, each
        as :meth:`current` gives it; for relabelling.  Those may be among them of which a version had one until relabelled.
        """

    async def intern_class(self, key: str) -> int:
        """The number of this visibility class; a new one is given the next."""

    async def advance_epoch(self, patient: str | None) -> None:
        """Raise this patient's counter, or with None the ``security`` one."""


class KeyValueStore(Protocol):
    """Small expiring records that are redeemed once: codes, tokens, assertion ids, sessions.  Keys are digests.

    ``kind`` names the sort of secret; ``family`` ties those that fall together (a token family).  ``now`` is the clock
    by which :meth:`keep` judges what has expired; whoever opens the store sets it to the server's.
    """

    now: Callable[[], int]

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        """Store; False (and nothing stored) if this key is already kept and not expired at ``now()``."""

    async def get(self, kind: str, key: str, now: int) -> bytes | None: ...

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        """Remove and return in one atomic step: of any number of takers, one gets it."""

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        """Store, or overwrite."""

    async def delete_family(self, family: str) -> None:
        """Remove all of a family, of every kind, and raise the ``security`` counter."""

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]: ...

    async def purge(self, now: int) -> None:
        """Remove what has expired."""


def system_now() -> int:
    """The system's clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class Store(Protocol):
    """A place that keeps resources, their history, their index, and secrets."""

    key_values: KeyValueStore

    async def prepare(self) -> None:
        """Make ready what can be made ready before the first use.

        Raises ValueError, worded for the operator, for a place that cannot keep the promises made here; OSError if it
        cannot be reached.
        """

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]: ...

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``job`` in a transaction and return once its outcome is durable.

        The job may be run on another thread, beside other jobs committed with it, and must await nothing
        but the transaction.  If it raises, nothing of it is kept.
        """

    async def append(self, journal: str, lines: Iterable[bytes]) -> None:
        """Add lines to an append-only journal (audit), in order, durably before the next acknowledged write."""

    async def journal(self, journal: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        """Lines of a journal with their numbers, from the one after ``after``."""

    async def close(self) -> None: ...


def open_store(url: str) -> Store:
    """The store at ``url``: the scheme names the module here that implements it.

    Raises ValueError for a scheme no module serves.
    """
    scheme = url.partition(":")[0]
    name = f"fhir_server.store.{scheme.partition('+')[0]}"
    try:
        connect = getattr(import_module(name), "connect", None)
    except ModuleNotFoundError as error:
        if error.name not in (name, name.rpartition(".")[0]):
            raise  # the store is there, but a package it needs is not
        connect = None
    if connect is None:
        raise ValueError(f"No store for URLs that start with {scheme!r}.")
    store: Store = connect(url)
    return store
