"""Digests of versions, and the numbers and times that each caller finds in them.

A caller who may not see a version, or the element that changed in it, must find numbers and times as if it had never been
written.  So each stored version has a :class:`~fhir_server.store.VersionDigest`: its class, its release, and a digest of each
part of the body with a class of its own.  :mod:`~fhir_server.access.version_numbers` counts by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

from fhir_server import jsontext
from fhir_server.access import version_numbers
from fhir_server.access.version_numbers import Sight
from fhir_server.clock import instant_text
from fhir_server.search.rows import Entry
from fhir_server.store import Row, VersionDigest, VersionHistory

_MOST_OWNERS: Final = 16  # a version of more patients does not say to whom it belongs, so that it stays small
_VERSION_META = re.compile(rb'"meta":\{"versionId":"[^"]*","lastUpdated":"[^"]*"')


def version_meta(version: int, updated: int) -> bytes:
    """The first members of every stored ``meta``; :func:`with_version_meta` finds them by their form."""
    return b'"versionId":"%d","lastUpdated":"%s"' % (version, instant_text(updated).encode())


def with_version_meta(body: bytes, version: int, updated: int) -> bytes:
    """The body with another version number and time."""
    return _VERSION_META.sub(b'"meta":{' + version_meta(version, updated), body, count=1)


def version_digest(row: Row) -> VersionDigest:
    """The digest of one version."""
    if row.interaction == "delete":
        return VersionDigest(row.version, row.updated, row.class_id, row.release_at, (), patients=_owners(row))
    rest, parts = _split(row)
    plain: dict[int, list[bytes]] = {}
    guarded: dict[tuple[tuple[int, ...], tuple[str, ...]], list[bytes]] = {}
    for part in parts:
        if part.targets:
            guarded.setdefault((part.classes, part.targets), []).append(part.text)
        elif part.class_id != row.class_id:
            plain.setdefault(part.class_id, []).append(part.text)
    digests = ((row.class_id, _digest([rest])), *((class_id, _digest(texts)) for class_id, texts in sorted(plain.items())))
    guarded_parts = tuple((_digest(texts), *condition) for condition, texts in sorted(guarded.items()))
    return VersionDigest(row.version, row.updated, row.class_id, row.release_at, digests, guarded_parts, patients=_owners(row))


def _owners(row: Row) -> tuple[str, ...] | None:
    return row.patients if len(row.patients) <= _MOST_OWNERS else None


class _Part(NamedTuple):
    """The text of a part without the parts inside it, the class of its index entries, and what a caller must see to see the part."""

    text: bytes
    class_id: int
    classes: tuple[int, ...]
    targets: tuple[str, ...]


def _split(row: Row) -> tuple[bytes, list[_Part]]:
    """The body without version number, time and parts, and the parts in an order that does not depend on hidden items of arrays."""
    classes = {element.path: element.class_id for element in row.labeled_elements}
    targets: dict[jsontext.Path, set[str]] = {}
    for reference in row.guarded_references:
        if reference.path:
            targets.setdefault(reference.path, set()).add(reference.target)
    paths = sorted({*classes, *targets}, key=_sort_key)
    parts = []
    for path in paths:
        text = _at(row.body, path)
        if not text:
            continue
        inner = [other[len(path) :] for other in paths if len(other) > len(path) and other[: len(path)] == path]
        around = [path[:length] for length in range(1, len(path) + 1)]
        outer_classes = [classes[prefix] for prefix in around if prefix in classes]
        guards = sorted(set[str]().union(*(targets.get(prefix, ()) for prefix in around)))
        own = _member_names(path).encode() + jsontext.remove_paths(text, inner)
        parts.append(_Part(own, outer_classes[-1] if outer_classes else row.class_id, tuple(sorted({*outer_classes})), tuple(guards)))
    return jsontext.remove_paths(with_version_meta(row.body, 0, 0), paths), parts


def _member_names(path: jsontext.Path) -> str:
    """A path without its array indexes, which shift when a hidden item is inserted before it."""
    return ".".join(step for step in path if isinstance(step, str))


def _sort_key(path: jsontext.Path) -> tuple[tuple[int, str], ...]:
    return tuple((step, "") if isinstance(step, int) else (0, step) for step in path)


def _at(body: bytes, path: jsontext.Path) -> bytes:
    text = body
    for step in path:
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


def visible_version(history: VersionHistory, sight: Sight) -> tuple[int, int]:
    """The (version number, time) of a version for a caller.

    The version itself always counts: the caller has passed the check of visibility for it.
    """
    counted = version_numbers.count(history, sight, is_visible=True)
    return counted.number, counted.updated


def last_updated_entries(row: Row) -> tuple[Entry, ...]:
    """The ``_lastUpdated`` index entries for changes of what no other row guards."""
    if row.history is None:
        return (last_updated_entry(row.updated, row.class_id),)
    return tuple(last_updated_entry(time, class_id) for time, class_id in sorted(version_numbers.last_changes(row.history)))


def last_updated_entry(updated: int, class_id: int) -> Entry:
    """A ``_lastUpdated`` index entry."""
    start = updated - updated % 1000
    return Entry("_lastUpdated", "date", (start, start + 1000), (), class_id)
