"""Versions as a caller can count them.

A caller who may not see a version, or the part of it that changed, must find version numbers and times as if it
had never been written.  So each stored version keeps an :class:`~fhir_server.store.VersionDigest`: its class, its release,
and a digest of every part of the body that has a class of its own.  From the eras alone follow, for any set of
admitted classes, the number and time of the version that caller sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise

from fhir_server import jsontext
from fhir_server.clock import instant_text
from fhir_server.search.rows import Entry
from fhir_server.store import LabeledElement, Row, VersionDigest

_STAMP = re.compile(rb'"meta":\{"versionId":"[^"]*","lastUpdated":"[^"]*"')


def version_meta(version: int, updated: int) -> bytes:
    """The first members of every stored ``meta``; :func:`restamped` finds them again by their form."""
    return b'"versionId":"%d","lastUpdated":"%s"' % (version, instant_text(updated).encode())


def with_version_meta(body: bytes, version: int, updated: int) -> bytes:
    """The body with another version number and time."""
    return _STAMP.sub(b'"meta":{' + version_meta(version, updated), body, count=1)


def version_digest(row: Row) -> VersionDigest:
    """The era of one version."""
    if row.interaction == "delete":
        return VersionDigest(row.version, row.updated, row.class_id, row.release_at, ())
    guarded_references = tuple(
        (_member_names(guarded_reference.path), guarded_reference.target)
        for guarded_reference in sorted(row.guarded_references, key=lambda one: _place(one.path))
    )
    return VersionDigest(row.version, row.updated, row.class_id, row.release_at, tuple(_digests(row)), guarded_references)


def _digests(row: Row) -> Iterator[tuple[int, str]]:
    rest = with_version_meta(row.body, 0, 0)
    by_class: dict[int, list[bytes]] = {}
    for labeled_element in sorted(row.labeled_elements, key=lambda labeled_element: _place(labeled_element.path)):
        part = _at(row.body, labeled_element)
        if part:
            by_class.setdefault(labeled_element.class_id, []).append(_member_names(labeled_element.path).encode() + part)
    apart = [labeled_element.path for labeled_element in row.labeled_elements] + [
        guarded_reference.path for guarded_reference in row.guarded_references
    ]
    yield row.class_id, _digest([jsontext.remove_paths(rest, apart)])
    for class_id, parts in sorted(by_class.items()):
        if class_id != row.class_id:
            yield class_id, _digest(parts)


def _member_names(path: jsontext.Path) -> str:
    """A path without its places in arrays, which shift when a part nobody sees is put in front."""
    return ".".join(step for step in path if isinstance(step, str))


def _place(path: jsontext.Path) -> tuple[tuple[int, str], ...]:
    return tuple((step, "") if isinstance(step, int) else (0, step) for step in path)


def _at(body: bytes, labeled_element: LabeledElement) -> bytes:
    text = body
    for step in labeled_element.path:
        if isinstance(step, int):
            items = jsontext.items(text)
            text = items[step] if step < len(items) else b""
        else:
            text = jsontext.members(text).get(step, b"")
        if not text:
            return b""
    return text


def _digest(parts: Iterable[bytes]) -> str:
    return blake2b(b"\0".join(parts), digest_size=9).hexdigest()


def visible_version(
    version_digests: tuple[VersionDigest, ...], classes: frozenset[int], shown: frozenset[str], released: int | None
) -> tuple[int, int]:
    """(version number, time) of the newest era for a caller admitted to ``classes`` to whom the rows ``shown`` are visible.

    ``released``: leave out eras released later than this instant (None: the caller sees them before release).
    The newest era counts even if out of view: the caller has been let through to it.
    """
    number, updated = 0, 0
    last: tuple[object, ...] = ()
    for position, one in enumerate(version_digests):
        newest = position == len(version_digests) - 1
        if not newest and (one.class_id not in classes or (released is not None and one.release_at > released)):
            continue
        parts = tuple(pair for pair in (*one.digests, *one.guarded_references) if pair[0] in classes or pair[1] in shown)
        if number == 0 or parts != last or not one.digests:
            number, updated = number + 1, one.updated
        last = parts
    return number, updated


def last_updated_entries(row: Row) -> tuple[Entry, ...]:
    """The ``_lastUpdated`` index entries: for every caller, the greatest one admitted is the time that caller is shown.

    Changes of references are left to :func:`moved`.  Each differing earlier version adds an entry of its own class: who
    sees that version sees the change after it.
    """
    if not row.version_digests:
        return (last_updated_entry(row.updated, row.class_id),)
    found = {
        (time, class_id) for class_id, _ in row.version_digests[-1].digests for time, class_id in _changes(row.version_digests, class_id)
    }
    return tuple(last_updated_entry(time, class_id) for time, class_id in sorted(found))


def _changes(version_digests: tuple[VersionDigest, ...], part: int) -> Iterator[tuple[int, int]]:
    newest = version_digests[-1]
    digest = dict(newest.digests)[part]
    since = newest.updated
    for older, newer in zip(reversed(version_digests[:-1]), reversed(version_digests), strict=False):
        same = dict(older.digests).get(part) == digest
        if older.class_id == newest.class_id:
            if not same:
                break
            since = older.updated
        elif not same:
            yield newer.updated, older.class_id
    yield since, part


def reference_changes(version_digests: tuple[VersionDigest, ...]) -> dict[str, int]:
    """``Type/id`` -> the latest instant at which the row began or ceased to refer to it; for rows with a history."""
    found: dict[str, int] = {}
    for older, newer in pairwise(version_digests):
        if older.digests and newer.digests:
            changed = set(older.guarded_references) ^ set(newer.guarded_references)
            found |= {target: newer.updated for _, target in changed}
    return found


def last_updated_entry(updated: int, class_id: int) -> Entry:
    """A ``_lastUpdated`` index entry."""
    start = updated - updated % 1000
    return Entry("_lastUpdated", "date", (start, start + 1000), (), class_id)
