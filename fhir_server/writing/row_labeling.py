"""Labels and indexes a row: its patients, visibility classes, release, version digests and index entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from fhir_server import jsontext
from fhir_server.access import version_numbers, versions
from fhir_server.access.app_state_owner import OWNER_PARAM
from fhir_server.access.permissions import INTERNAL, STORED
from fhir_server.consent import security_labels
from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.consent.departments import read_versions
from fhir_server.consent.label_sources import Bodies, Body, LabelSource, LendingVersion, lent_class, no_bodies
from fhir_server.consent.labeling import Labeler, LabelingResult
from fhir_server.consent.security_labels import is_persons_report, is_restraint
from fhir_server.consent.visibility_classes import PHYHOLD, VisibilityClass
from fhir_server.resources import catalog
from fhir_server.search import index, words
from fhir_server.search.rows import Entry
from fhir_server.store import IndexedRow, LabeledElement, Row, Transaction, VersionHistory, version_summary
from fhir_server.store.version_rebase import View, rebased_history
from fhir_server.writing.guarded_entries import guarded_class
from fhir_server.writing.joined_labels import joined
from fhir_server.writing.meta import INTERNAL_META
from fhir_server.writing.path_index import PathIndex
from fhir_server.writing.search_parameters import SearchParameterFollower

_RESTRAINT: Final = frozenset({PHYHOLD})


_visibility_class = lru_cache(4096)(VisibilityClass.parse)


class _ParsedOnce:
    """Parses a body when it is first needed."""

    __slots__ = ("_text", "_value")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._value: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        if self._value is None:
            self._value = jsontext.parse(self._text)
        return self._value


class RowLabeler:
    """Labels rows within one transaction, and remembers which of them refer to rows that are not yet written.

    ``base``: the FHIR base URL, for absolute references in index entries.  ``parameters``: the custom search parameters.
    """

    def __init__(self, tx: Transaction, labeler: Labeler, base: str, parameters: SearchParameterFollower | None = None) -> None:
        self._tx = tx
        self._parameters = parameters or SearchParameterFollower(tx)
        self._labeler = labeler
        self._base = base
        self._sources: dict[str, LabelSource | None] = {}
        self._class_ids: dict[VisibilityClass, int] = {}
        self._classes: dict[int, VisibilityClass] = {}
        self._keys: tuple[str, ...] = ()
        self._waiting: dict[str, set[str]] = {}
        self._being_read: set[str] = set()
        self._looked_up: dict[str, set[str]] = {}

    async def label(
        self,
        row: Row,
        value: dict[str, Any],
        history: VersionHistory | None,
        *,
        stored: Row | None = None,
        purged: Mapping[View, View] | None = None,
    ) -> IndexedRow:
        """The row, whose parsed body is ``value``, with its labels and index entries; ``history``: what the version before it knows.

        ``stored``: the row as it is stored, whose labels it keeps besides its new ones.  ``purged``: the version before it is purged,
        so the row's own history has what is known of those before; (class, release) of stored versions before and now.
        """
        name, was = f"{row.type}/{row.id}", row.history
        looked_up = self._looked_up[name] = set()

        async def find_source(type: str, id: str) -> LabelSource | None:
            looked_up.add(f"{type}/{id}")
            source = await self._label_source(type, id)
            if source is None:
                self._waiting.setdefault(f"{type}/{id}", set()).add(name)
            return source

        async def find_referrers(params: tuple[str, ...]) -> dict[str, LabelSource]:
            found = await self._tx.referrers_unfiltered(name, frozenset(params))
            looked_up.update(f"{other.type}/{other.id}" for other in found)
            return {f"{other.type}/{other.id}": await self._source_of(other) for other in found}

        labels = await self._labeler.label(row.type, value, find_source, find_referrers)
        elements = [LabeledElement(path, await self._class_id(key)) for path, key in labels.labeled_elements]
        for path, key in _meta_classes(value.get("meta", {}), labels.key):
            elements.append(LabeledElement(path, await self._class_id(key)))
        row = msgspec.structs.replace(
            row, patients=labels.patients, class_id=await self._class_id(labels.key), release_at=labels.release_at,
            labeled_elements=tuple(elements), guarded_references=labels.row_guards(),
        )  # fmt: skip
        if stored is not None:
            row = await joined(stored, row, await self._tx.classes(), self._class_id)
        looked_up.update(reference.target for reference in row.guarded_references)
        known: VersionHistory | None = None
        if history or row.release_at or purged is not None:
            digest = msgspec.structs.replace(
                versions.version_digest(row),
                declassifies=security_labels.declassifies(value),
                own_release_at=security_labels.release_at(value, self._labeler.policy.timezone),
            )
            if purged is not None and was is not None and was.earlier is not None:
                known = rebased_history(was, digest, purged)
            else:
                known = version_summary.following(history, digest)
        # Also None: a row that is labeled again may have had a history, with the labels of that time.
        if known is not row.history:
            row = msgspec.structs.replace(row, history=known)
        paths = [*[part.path for part in row.labeled_elements], *[part.path for part in row.guarded_references]]
        apart = {str(path[0]) for path in paths if path}
        custom = (await self._parameters.all()).of(row.type)
        found = (*index.entries(row.type, value, self._base, custom), *words.entries(row.type, value, apart))
        entries = words.merged(await self._with_guarded_classes(_with_class_ids(found, row), row))
        indexed = {entry.value[0] for entry in entries if entry.kind == "reference"}
        sources = [source for source in labels.label_sources if source not in indexed]
        own = await self._reference_entries(row, value, labels, sources)
        return IndexedRow(row, (*entries, *await self._time_entries(row), *own))

    async def _time_entries(self, row: Row) -> list[Entry]:
        """The ``_lastUpdated`` entries: for each caller, the greatest admitted one is the time that the caller reads."""
        entries = [*versions.last_updated_entries(row)]
        for (classes, targets), time in (version_numbers.guarded_changes(row.history) if row.history else {}).items():
            # Who does not see from a class whether the part is visible finds the row by the change before that.
            if key := await self._guarded_class(row, classes, targets):
                entries.append(versions.last_updated_entry(time, await self._class_id(key)))
        if row.history and all(time != row.updated for time, _ in version_numbers.last_changes(row.history)):
            entries.append(versions.last_updated_entry(row.updated, await self._class_id(STORED)))
        return entries

    async def _reference_entries(self, row: Row, value: dict[str, Any], labels: LabelingResult, sources: list[str]) -> list[Entry]:
        """The entries by which the server finds rows that refer to others.

        ``sources``: the resources from which the row inherits without an entry of a search parameter that refers to them.
        """
        internal = await self._class_id(INTERNAL) if sources else 0
        entries = [Entry("_depends", "reference", (target,), (), row.class_id) for target in labels.depends_on]
        entries += [Entry(f"_depends.{param}", "reference", (name,), (), row.class_id) for param, name in labels.owners]
        entries += [Entry("_refers", "reference", (source,), (), internal) for source in sources]
        targets = {reference.target for reference in row.guarded_references}
        people = sorted(target for target in targets if target.startswith("RelatedPerson/"))
        if labels.key.data == "app-state":
            entries.append(Entry(OWNER_PARAM, "reference", (value["meta"]["source"],), (), row.class_id))
        return entries + [Entry("_mentions", "reference", (person,), (), row.class_id) for person in people]

    async def lends(self, row: Row) -> tuple[object, ...]:
        """What rows that refer to this one inherit from it, to compare two states of a row."""
        source = await self._source_of(row)
        if source.key.data == "directory":
            # Everybody sees the directory, so a row of it lends the same after its deletion.
            return (read_versions(self._labeler.codes, row.type, await source.bodies()),) if row.type in DEPARTMENTS else ()
        ended = row.interaction == "delete"
        return (source.key, source.release_at, source.data_classes, row.class_id, row.release_at, row.patients, source.depends_on, ended)

    async def has_department(self, row: Row) -> bool:
        """Whether a row of the directory says of what department it is."""
        source = await self._source_of(row)
        reading = read_versions(self._labeler.codes, row.type, await source.bodies())
        return bool(reading.labels or reading.parents)

    async def has_labels(self, row: Row) -> bool:
        """Whether a row lends any label or a release date."""
        if row.history is None and not catalog()[row.type].inherits_from_referrers:  # it lends what it has itself
            return row.release_at > 0 or bool((await self._class_of(row.class_id)).labels)
        source = await self._source_of(row)
        return bool(source.key.labels) or source.release_at > 0

    def forget(self, name: str) -> None:
        """Look up the row ``Type/id`` again when it is next needed: it has been written."""
        self._sources.pop(name, None)

    def sources_of(self, name: str) -> set[str]:
        """The rows on which the labels of the row ``Type/id`` depend, which was labeled in this transaction."""
        return self._looked_up.pop(name, set())

    def pop_waiting(self, name: str) -> set[str]:
        """The rows that were labeled in this transaction while ``name``, to which they refer, was not yet written."""
        return self._waiting.pop(name, set())

    async def _with_guarded_classes(self, entries: list[Entry], row: Row) -> list[Entry]:
        """The entries; those of guarded parts with a class that only callers who see the guarding rows are admitted to.

        A reference that is guarded by its own target needs none: a search by it looks the target up (``search/hidden_references.py``), and
        nobody from whom anything can be hidden sorts by it.  That is not so of a URL: it is sorted by, and found by what it begins with.
        """
        guards = [reference for reference in row.guarded_references if reference.path]
        if not guards:
            return entries
        guarded = PathIndex((reference.path, reference.target) for reference in guards)
        found = []
        for entry in entries:
            if entry.path and entry.path[0] in guarded.members:
                own = set() if index.is_of_uri(row.type, entry.param) else {entry.value[0]}
                around = set(guarded.overlapping(entry.path)) - own
                if around:
                    key = await self._guarded_class(row, (entry.class_id,), tuple(sorted(around)))
                    entry = msgspec.structs.replace(entry, class_id=await self._class_id(key or INTERNAL))
            found.append(entry)
        return found

    async def _guarded_class(self, row: Row, classes: tuple[int, ...], targets: tuple[str, ...]) -> VisibilityClass | None:
        """The class of a fact that only callers who see parts of these classes and all of these rows may know; None: no class says so."""
        found = [await self._tx.read_unfiltered(*target.split("/")) for target in targets]
        guards = [(other, await self._class_of(other.class_id)) if other else None for other in found]
        return guarded_class((row, await self._class_of(row.class_id)), [await self._class_of(part) for part in classes], guards)

    async def _class_of(self, class_id: int) -> VisibilityClass:
        known = self._classes.get(class_id)
        if known is None:
            if class_id >= len(self._keys):
                self._keys = await self._tx.classes()
            known = self._classes[class_id] = _visibility_class(self._keys[class_id])
        return known

    async def _class_id(self, key: VisibilityClass) -> int:
        class_id = self._class_ids.get(key)
        if class_id is None:
            class_id = self._class_ids[key] = await self._tx.intern_class(key.text())
            self._classes[class_id] = key
        return class_id

    async def _label_source(self, type: str, id: str) -> LabelSource | None:
        """What a row propagates to rows that refer to it, also after its deletion; None if it never existed."""
        name = f"{type}/{id}"
        if name not in self._sources:
            row = await self._tx.read_unfiltered(type, id)
            self._sources[name] = None if row is None else await self._source_of(row)
        return self._sources[name]

    async def _source_of(self, row: Row) -> LabelSource:
        """What a row, or a deleted row, lends: its class and release over its versions, and their bodies."""
        since = version_numbers.lends_since(row.history) if row.history else 1
        newest = row if row.interaction != "delete" else await self._ended_by(row)
        parsed = _ParsedOnce(newest.body)
        earlier = partial(self._earlier_bodies, newest, since) if newest.version > since else no_bodies
        lending = await self._own_classes(row, parsed, earlier) or await self._stored_classes(row)
        key, release = lent_class(lending)
        depends_on = tuple(reference.target for reference in newest.guarded_references if not reference.path)
        text = newest.body if earlier is no_bodies else b""
        data = frozenset([version.key.data for version in lending])
        return LabelSource(key, release, parsed, earlier, data, depends_on, text)

    async def _stored_classes(self, row: Row) -> list[LendingVersion]:
        """The versions that lend, as they are stored."""
        if row.history is None:
            return [LendingVersion(await self._class_of(row.class_id), row.release_at, 0)]
        return [LendingVersion(await self._class_of(class_id), *release) for class_id, *release in version_numbers.lending(row.history)]

    async def _own_classes(self, row: Row, parsed: Body, earlier: Bodies) -> list[LendingVersion]:
        """The same without the labels of rows that refer to it: a specimen does not pass them from one result on to the others.

        Empty if rows of this type take no labels from those that refer to them, or while this row is being read.
        """
        name = f"{row.type}/{row.id}"
        if not catalog()[row.type].inherits_from_referrers or name in self._being_read:
            return []
        self._being_read.add(name)
        labeled = [await self._labeler.label(row.type, body, self._label_source) for body in (*await earlier(), parsed())]
        self._being_read.remove(name)
        return [LendingVersion(labels.key, labels.release_at, 0) for labels in labeled]

    async def _ended_by(self, deletion: Row) -> Row:
        """The version that a deletion ended; the deletion may be a past version by now."""
        (ended,) = await self._tx.read_past_unfiltered(deletion.type, deletion.id, deletion.version - 1, deletion.version - 1)
        return ended

    async def _earlier_bodies(self, newest: Row, since: int) -> list[dict[str, Any]]:
        """The bodies of the versions from ``since`` up to the newest one, without that."""
        past = await self._tx.read_past_unfiltered(newest.type, newest.id, since, newest.version - 1)
        return [jsontext.parse(row.body) for row in past if row.body]


def _meta_classes(meta: Mapping[str, Any], row: VisibilityClass) -> Iterator[tuple[jsontext.Path, VisibilityClass]]:
    """The classes of the members of a row's meta that not every reader of the row may see.

    A clinician's restraint is seen by those who see restrained rows, the mark of who reported a row by all who see it.
    """
    for member in INTERNAL_META:
        items = meta.get(member, ())
        classes = [_item_class(member, item, row) for item in items] if isinstance(items, list) else []
        if items and all(key == INTERNAL for key in classes):
            yield ("meta", member), INTERNAL
        else:
            yield from ((("meta", member, number), key) for number, key in enumerate(classes) if key not in (None, row))


def _item_class(member: str, item: Mapping[str, Any], row: VisibilityClass) -> VisibilityClass | None:
    if member == "tag" and is_persons_report(item):
        return None
    if member == "security" and is_restraint(item):
        return VisibilityClass(row.data, row.labels | _RESTRAINT)
    return INTERNAL


def _with_class_ids(entries: Iterable[Entry], row: Row) -> list[Entry]:
    """Each entry with the class of the element of the row that it was extracted from: the one with the longest path."""
    if not row.labeled_elements:
        return [Entry(entry.param, entry.kind, entry.value, entry.path, row.class_id) for entry in entries]
    elements = sorted(row.labeled_elements, key=lambda element: -len(element.path))
    classes = PathIndex((element.path, element.class_id) for element in elements)
    return [
        Entry(
            entry.param, entry.kind, entry.value, entry.path,
            _class_at(entry.path, classes, row.class_id) if not entry.path or entry.path[0] in classes.members else row.class_id,
        )
        for entry in entries
    ]  # fmt: skip


def _class_at(path: jsontext.Path, classes: PathIndex[int], row_class: int) -> int:
    return next(classes.overlapping(path), row_class)
