"""A resource's way into the store: checked, spliced, indexed, labelled, and its neighbours relabelled.

Nothing here decides whether the caller may write; that is the interactions' business, through their View.
The text received is kept: only ``id`` and ``meta`` are cut and joined (http://hl7.org/fhir/R4/http.html#create).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.permissions import INTERNAL
from fhir_server.consent.labeling import Labeler, LabelingResult, LabelSource, patient_ids
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.errors import Problem
from fhir_server.resources import catalog, validate
from fhir_server.resources.references import ID
from fhir_server.search import index
from fhir_server.search.visibility import Entry
from fhir_server.store import IndexedRow, LabeledElement, Row, Transaction, VersionDigest

# Members of meta that say how we handle the row, not what it records: only a trusted caller sends or sees them.
_INTERNAL_META = ("security", "tag", "source")
_BEHIND = re.compile(r"/_history/|[?#]")
_REFERENCE = re.compile(rb'"reference"\s*:\s*"([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class Draft:
    """A resource as received and found valid: its type, its parsed value, and the text of each of its members."""

    type: str
    value: dict[str, Any]
    parts: Mapping[str, bytes]

    @property
    def id(self) -> str | None:
        return self.value.get("id")

    def references(self) -> frozenset[str]:
        """Every literal reference in it, as written."""
        return references(b",".join(self.parts.values()))


def parse_draft(text: bytes, type: str | None = None, *, base: str = "") -> Draft:
    """Read and validate a received resource, of ``type`` if one is expected.

    Absolute references below ``base``, our own FHIR base, become relative: a row of ours has one name.  Raises Problem
    ``invalid`` with one issue for each defect found.
    """
    text = _relative(text, base)
    value = jsontext.parse(text)
    if not has_readable_references(text, value):
        text = _relative(jsontext.unescape(text), base)
        value = jsontext.parse(text)
    if not isinstance(value, dict):
        raise Problem("invalid", "A resource is a JSON object.")
    name = value.get("resourceType")
    if not isinstance(name, str) or name not in catalog():
        raise Problem("invalid", "The body's resourceType is not a resource type of R4.")
    if type is not None and name != type:
        raise Problem("invalid", f"The body is a {name}; this address takes a {type}.")
    issues = validate.check(name, value)
    if issues:
        raise Problem("invalid", issues[0].text, tuple(issues))
    # Without the writer's layout: else a part that was cut would show by the layout of what is joined again.
    return Draft(name, value, jsontext.members(jsontext.compact(text)))


def _relative(text: bytes, base: str) -> bytes:
    own = f'"{base}/'.encode()
    return _REFERENCE.sub(lambda found: found.group(0).replace(own, b'"'), text) if base and own in text else text


def has_readable_references(text: bytes, value: Any) -> bool:
    """Whether :func:`references` finds all references of a JSON text of this value: some writers escape slashes, or anything."""
    return not (b"\\/" in text or b"\\u" in text) or references(text).issuperset(_found(value))


def _found(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _found(one)


def references(text: bytes) -> frozenset[str]:
    """Every literal reference in a resource's JSON text, as written."""
    return frozenset([found.decode() for found in set(_REFERENCE.findall(text))])


def content_of(draft: Draft) -> bytes:
    """What a draft says, apart from its id and the stamp in its meta: equal texts are equal resources."""
    return _content(draft.parts)


def content(body: bytes) -> bytes:
    """What a stored body says, as :func:`content_of`."""
    return _content(jsontext.members(body))


def _content(parts: Mapping[str, bytes]) -> bytes:
    meta = jsontext.members(parts["meta"]) if "meta" in parts else {}
    kept = {name: text for name, text in meta.items() if name not in ("versionId", "lastUpdated")}
    rest = {name: text for name, text in parts.items() if name not in ("id", "meta")}
    return jsontext.join_members(kept) + jsontext.join_members(rest)


# Rows that lend labels are stored before rows that inherit them, so that most are labelled right at once.
_LABEL_SOURCES = (
    "Organization", "Location", "HealthcareService", "Practitioner", "PractitionerRole", "Patient", "RelatedPerson", "Encounter",
    "ServiceRequest", "Condition", "Observation",
)  # fmt: skip


def rank(type: str) -> int:
    """Where a type comes in the order of storing."""
    return _LABEL_SOURCES.index(type) if type in _LABEL_SOURCES else len(_LABEL_SOURCES)


def relative(reference: str, base: str) -> str:
    """A literal reference as ``Type/id``: our own base, a version and what follows are stripped; anything else is left as it is."""
    text = reference.removeprefix(base + "/") if reference.startswith(base + "/") else reference
    return _BEHIND.split(text, maxsplit=1)[0]


def is_local(reference: str) -> bool:
    """Whether a relative reference has the form ``Type/id`` of a resource type we know."""
    type, _, id = reference.partition("/")
    return type in catalog() and ID.fullmatch(id) is not None


# Rows of these types decide who may see others' rows; a change of one ends every plan made from it.
_FACTS = frozenset({"Patient", "RelatedPerson", "Consent"})
# Rows of these types lend their department to rows that name them, whatever their own class.
_DEPARTMENTS = frozenset({"Location", "HealthcareService", "Organization", "PractitionerRole"})


class ResourceWriter:
    """The writes of one transaction.  ``base`` is the FHIR base URL, ``now`` the instant of the request."""

    def __init__(self, tx: Transaction, labeler: Labeler, base: str, now: int) -> None:
        self._tx = tx
        self._labeler = labeler
        self._base = base
        self._now = now
        self._targets: dict[str, LabelSource | None] = {}
        self._numbers: dict[VisibilityClass, int] = {}
        # Rows labelled while a row they inherit from was yet to be written in this transaction.
        self._waiting: dict[str, set[str]] = {}
        self._stale: set[str] = set()

    async def write(self, draft: Draft, id: str, *, trusted: bool, previous: Row | None, source: str = "") -> Row:
        """Write the next version of ``draft.type/id``; ``previous`` is its current row or its deletion.

        Security labels, tags and source are taken from a ``trusted`` caller; an update by another keeps those that stand.
        ``source``: what a new row of such another gets as its ``meta.source``.
        """
        created = previous is None or previous.interaction == "delete"
        version = previous.version + 1 if previous else 1
        body, value = _with_id_and_meta(draft, id, versions.version_meta(version, self._now), _meta(draft, trusted, previous, source))
        row = Row(draft.type, id, version, self._now, (), 0, 0, body, interaction="create" if created else "update")
        record = await self._label(row, value, _history(previous))
        await self._tx.put(record)
        await self._propagate_change(record.row, previous)
        return record.row

    async def delete(self, current: Row) -> Row:
        """Delete the current version; what refers to it keeps its reference, which no longer shows."""
        gone = msgspec.structs.replace(
            current,
            version=current.version + 1,
            updated=self._now,
            body=b"",
            labeled_elements=(),
            guarded_references=(),
            version_digests=(),
            interaction="delete",
        )
        gone = msgspec.structs.replace(gone, version_digests=(*_history(current), versions.version_digest(gone)))
        await self._tx.delete(gone)
        await self._propagate_change(gone, current)
        return gone

    async def relabel(self, row: Row) -> bool:
        """Label the current version, or the deletion, and all versions before it afresh; whether anything about their
        visibility changed.  Old versions too inherit from what is current now: a label given late holds for all that was.
        """
        changed = False
        fresh: IndexedRow | None = None
        for version in (*(await self._tx.read_past_unfiltered(row.type, row.id) if row.version_digests else ()), row):
            fresh = await self._relabeled(version, fresh)
            if _visibility(fresh.row) != _visibility(version):
                await self._tx.relabel(fresh)
                changed = True
        if changed:
            self._targets.pop(f"{row.type}/{row.id}", None)
        return changed

    async def _relabeled(self, version: Row, before: IndexedRow | None) -> IndexedRow:
        """A stored version as it would be written now, after ``before``; a deletion is as the version it ended."""
        history = _history(before.row if before else None)
        if before is None or version.interaction != "delete":
            return await self._label(version, jsontext.parse(version.body), history)
        was = before.row
        gone = msgspec.structs.replace(version, patients=was.patients, class_id=was.class_id, release_at=was.release_at)
        return IndexedRow(msgspec.structs.replace(gone, version_digests=(*history, versions.version_digest(gone))), before.entries)

    async def relabel_with_dependents(self, row: Row) -> bool:
        """As :meth:`relabel`, with what follows for rows that inherit."""
        changed = await self.relabel(row)
        if changed:
            await self._propagate(f"{row.type}/{row.id}")
        return changed

    async def _propagate_change(self, row: Row, previous: Row | None) -> None:
        """Carry the consequences of a write to rows that inherit from it and to plans that were made from it."""
        name = f"{row.type}/{row.id}"
        self._targets.pop(name, None)
        self._stale |= self._waiting.pop(name, set())
        if row.type in _FACTS and (previous is not None or row.type != "Patient"):
            for patient in {*row.patients, *(previous.patients if previous else ())}:
                await self._tx.advance_epoch(patient)
        if previous is not None and _effective_labels(previous) != _effective_labels(row):
            await self._propagate(name)

    async def relabel_pending(self) -> None:
        """Label again what was labelled before a row it inherits from was written; to be awaited last."""
        while self._stale:
            type, _, id = self._stale.pop().partition("/")
            row = await self._tx.read_unfiltered(type, id)
            if row is not None and await self.relabel(row):
                await self._propagate(f"{type}/{id}")

    async def relabel_referrers(self, name: str) -> None:
        """Label again the rows that already refer to this newly written row; needed where ids are the caller's choice."""
        await self._propagate(name)

    async def _propagate(self, name: str) -> None:
        waiting, done = [name], {name}
        while waiting:
            target = waiting.pop()
            if not self._labeler.propagates_labels(target.partition("/")[0]):
                continue
            for row in await self._tx.referrers_unfiltered(target):
                source = f"{row.type}/{row.id}"
                if await self.relabel(row) and source not in done:
                    done.add(source)
                    waiting.append(source)

    async def _label(self, row: Row, value: dict[str, Any], history: tuple[VersionDigest, ...]) -> IndexedRow:
        name = f"{row.type}/{row.id}"

        async def target(type: str, id: str) -> LabelSource | None:
            found = await self._label_source(type, id)
            if found is None:
                self._waiting.setdefault(f"{type}/{id}", set()).add(name)
            return found

        labels = await self._labeler.label(row.type, value, target)
        labeled_elements = [LabeledElement(path, await self._class_id(key)) for path, key in labels.labeled_elements]
        for name in _INTERNAL_META:
            if name in value.get("meta", {}):
                labeled_elements.append(LabeledElement(("meta", name), await self._class_id(INTERNAL)))
        row = msgspec.structs.replace(
            row, patients=labels.patients, class_id=await self._class_id(labels.key), release_at=labels.release_at,
            labeled_elements=tuple(labeled_elements), guarded_references=labels.guarded_references,
        )  # fmt: skip
        if history:
            row = msgspec.structs.replace(row, version_digests=(*history, versions.version_digest(row)))
        found = index.entries(row.type, value, self._base)
        hidden = await self._class_id(INTERNAL) if labels.label_sources else 0
        label_sources = tuple(Entry("_refers", "reference", (target,), (), hidden) for target in labels.label_sources)
        mentions = {
            guarded_reference.target
            for guarded_reference in labels.guarded_references
            if guarded_reference.target.startswith("RelatedPerson/")
        }
        people = tuple(Entry("_mentions", "reference", (target,), (), row.class_id) for target in sorted(mentions))
        moved = [
            versions.last_updated_entry(time, await self._class_id(await self._class_of_both(labels, name)))
            for name, time in versions.reference_changes(row.version_digests).items()
        ]
        return IndexedRow(row, (*_with_class_ids(found, row), *versions.last_updated_entries(row), *moved, *label_sources, *people))

    async def _class_of_both(self, labels: LabelingResult, name: str) -> VisibilityClass:
        """The class of what only those may know who see a row and another that it refers to."""
        type, _, id = name.partition("/")
        target = await self._label_source(type, id)
        if target is None or target.release_at or not set(patient_ids(type, target.body)) <= set(labels.patients):
            return INTERNAL
        return VisibilityClass(labels.key.data, labels.key.labels | target.key.labels, f"@{target.key.data}")

    async def _class_id(self, key: VisibilityClass) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = await self._tx.intern_class(key.text())
        return number

    async def _label_source(self, type: str, id: str) -> LabelSource | None:
        """What a row lends to rows that name it: its class and release, and its parsed body for its department."""
        name = f"{type}/{id}"
        if name not in self._targets:
            row = await self._tx.read_unfiltered(type, id)
            if row is None or row.interaction == "delete":
                self._targets[name] = None
            else:
                keys = await self._tx.classes()
                self._targets[name] = LabelSource(
                    VisibilityClass.parse(keys[row.class_id]), row.release_at, cache(partial(jsontext.parse, row.body))
                )
        return self._targets[name]


def _meta(draft: Draft, trusted: bool, previous: Row | None, source: str) -> dict[str, bytes]:
    """The members of the new version's meta beside its stamp."""
    received = jsontext.members(draft.parts["meta"]) if "meta" in draft.parts else {}
    ours = _INTERNAL_META if not trusted else ()
    kept = {name: text for name, text in received.items() if name not in ("versionId", "lastUpdated", *ours)}
    if ours and previous is not None and previous.body:
        standing = jsontext.members(jsontext.members(previous.body)["meta"])
        kept |= {name: text for name, text in standing.items() if name in ours}
    return kept | ({"source": json.dumps(source).encode()} if source else {})


def _with_id_and_meta(draft: Draft, id: str, stamp: bytes, meta: Mapping[str, bytes]) -> tuple[bytes, dict[str, Any]]:
    """The body to store, and its parsed value."""
    head = {"resourceType": b'"%s"' % draft.type.encode(), "id": b'"%s"' % id.encode(), "meta": b"{" + stamp}
    kept = {name: text for name, text in draft.parts.items() if name not in head}
    head["meta"] += b"," + jsontext.join_members(meta)[1:] if meta else b"}"
    body = jsontext.join_members(head | kept)
    return body, {**draft.value, "id": id, "meta": {name: jsontext.parse(text) for name, text in meta.items()}}


def _history(row: Row | None) -> tuple[VersionDigest, ...]:
    if row is None:
        return ()
    return row.version_digests or (versions.version_digest(row),)


def _visibility(row: Row) -> tuple[object, ...]:
    """All that labelling gives a version."""
    return row.patients, row.class_id, row.release_at, row.labeled_elements, row.guarded_references, row.version_digests


def _effective_labels(row: Row) -> tuple[object, ...]:
    """What rows that name this one inherit from it."""
    body = row.body if row.type in _DEPARTMENTS else row.interaction == "delete"
    return (row.class_id, row.release_at, body)


def _with_class_ids(found: tuple[Entry, ...], row: Row) -> list[Entry]:
    """Each entry with the class of the part of the row it was made from."""
    labeled_elements = sorted(row.labeled_elements, key=lambda labeled_element: -len(labeled_element.path))
    parted, whole = {labeled_element.path[0] for labeled_element in labeled_elements}, row.class_id
    classes = [_class_at(one.path, labeled_elements, whole) if not one.path or one.path[0] in parted else whole for one in found]
    return [Entry(one.param, one.kind, one.value, one.path, class_id) for one, class_id in zip(found, classes, strict=True)]


def _class_at(path: jsontext.Path, labeled_elements: list[LabeledElement], whole: int) -> int:
    for labeled_element in labeled_elements:
        length = min(len(path), len(labeled_element.path))
        if path[:length] == labeled_element.path[:length]:
            return labeled_element.class_id
    return whole
