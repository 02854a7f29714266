"""Versions as a caller can count them.

A caller who may not see a version, or the part of it that changed, must find version numbers and times as if it
had never been written.  So each stored version keeps an :class:`~fhir_server.store.Era`: its class, its release,
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
from fhir_server.search.visibility import Entry
from fhir_server.store import Era, Facet, Row

_STAMP = re.compile(rb'"meta":\{"versionId":"[^"]*","lastUpdated":"[^"]*"')


def stamp(version: int, updated: int) -> bytes:
    """The first members of every stored ``meta``; :func:`restamped` finds them again by their form."""
    return b'"versionId":"%d","lastUpdated":"%s"' % (version, instant_text(updated).encode())


def restamped(body: bytes, version: int, updated: int) -> bytes:
    """The body with another version number and time."""
    return _STAMP.sub(b'"meta":{' + stamp(version, updated), body, count=1)


def era(row: Row) -> Era:
    """The era of one version."""
    if row.interaction == "delete":
        return Era(row.version, row.updated, row.vclass, row.release_at, ())
    pointers = tuple((_named(pointer.path), pointer.target) for pointer in sorted(row.pointers, key=lambda one: _place(one.path)))
    return Era(row.version, row.updated, row.vclass, row.release_at, tuple(_digests(row)), pointers)


def _digests(row: Row) -> Iterator[tuple[int, str]]:
    rest = restamped(row.body, 0, 0)
    by_class: dict[int, list[bytes]] = {}
    for facet in sorted(row.facets, key=lambda facet: _place(facet.path)):
        part = _at(row.body, facet)
        if part:
            by_class.setdefault(facet.vclass, []).append(_named(facet.path).encode() + part)
    apart = [facet.path for facet in row.facets] + [pointer.path for pointer in row.pointers]
    yield row.vclass, _digest([jsontext.without(rest, apart)])
    for vclass, parts in sorted(by_class.items()):
        if vclass != row.vclass:
            yield vclass, _digest(parts)


def _named(path: jsontext.Path) -> str:
    """A path without its places in arrays, which shift when a part nobody sees is put in front."""
    return ".".join(step for step in path if isinstance(step, str))


def _place(path: jsontext.Path) -> tuple[tuple[int, str], ...]:
    return tuple((step, "") if isinstance(step, int) else (0, step) for step in path)


def _at(body: bytes, facet: Facet) -> bytes:
    text = body
    for step in facet.path:
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


def as_seen(eras: tuple[Era, ...], classes: frozenset[int], shown: frozenset[str], released: int | None) -> tuple[int, int]:
    """(version number, time) of the newest era for a caller admitted to ``classes`` to whom the rows ``shown`` are visible.

    ``released``: leave out eras released later than this instant (None: the caller sees them before release).
    The newest era counts even if out of view: the caller has been let through to it.
    """
    number, updated = 0, 0
    last: tuple[object, ...] = ()
    for position, one in enumerate(eras):
        newest = position == len(eras) - 1
        if not newest and (one.vclass not in classes or (released is not None and one.release_at > released)):
            continue
        parts = tuple(pair for pair in (*one.digests, *one.pointers) if pair[0] in classes or pair[1] in shown)
        if number == 0 or parts != last or not one.digests:
            number, updated = number + 1, one.updated
        last = parts
    return number, updated


def updates(row: Row) -> tuple[Entry, ...]:
    """The ``_lastUpdated`` index entries: for every caller, the greatest one admitted is the time that caller is shown.

    Changes of references are left to :func:`moved`.  Each differing earlier version adds an entry of its own class: who
    sees that version sees the change after it.
    """
    if not row.eras:
        return (entry(row.updated, row.vclass),)
    found = {(time, vclass) for vclass, _ in row.eras[-1].digests for time, vclass in _changes(row.eras, vclass)}
    return tuple(entry(time, vclass) for time, vclass in sorted(found))


def _changes(eras: tuple[Era, ...], part: int) -> Iterator[tuple[int, int]]:
    newest = eras[-1]
    digest = dict(newest.digests)[part]
    since = newest.updated
    for older, newer in zip(reversed(eras[:-1]), reversed(eras), strict=False):
        same = dict(older.digests).get(part) == digest
        if older.vclass == newest.vclass:
            if not same:
                break
            since = older.updated
        elif not same:
            yield newer.updated, older.vclass
    yield since, part


def moved(eras: tuple[Era, ...]) -> dict[str, int]:
    """``Type/id`` -> the latest instant at which the row began or ceased to refer to it; for rows with a history."""
    found: dict[str, int] = {}
    for older, newer in pairwise(eras):
        if older.digests and newer.digests:
            changed = set(older.pointers) ^ set(newer.pointers)
            found |= {target: newer.updated for _, target in changed}
    return found


def entry(updated: int, vclass: int) -> Entry:
    """A ``_lastUpdated`` index entry."""
    start = updated - updated % 1000
    return Entry("_lastUpdated", "date", (start, start + 1000), (), vclass)
