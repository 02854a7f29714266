"""The newest resources of each code among those that a search finds, from the index (R4's rules of ``$lastn``).

Codes are the same if system and code are.  A resource with several codings says that they mean the same, for the whole result: so a
chain of such resources is one group.  A code without codings is grouped by its text, letter by letter.  Different subjects make
different groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fhir_server import budget, jsontext
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json
from fhir_server.interactions.search import Pair, binding, next_link, searchset_entries
from fhir_server.interactions.service import Service
from fhir_server.search.filters import Filter, IdIs
from fhir_server.search.query import Query
from fhir_server.search.rows import STALE_LINK, Entry, Position, RowEntries

Newest = Sequence[str]
"""Ids of resources, from the most recent to the oldest."""

_DATE, _SUBJECT = ("date", "date"), ("subject", "reference")
_PORTION: Final = 500
_Key = tuple[Any, ...]


class _Dated(NamedTuple):
    """A resource, the keys of the group to which it belongs, and when it was: (end, begin), or None."""

    id: str
    keys: tuple[_Key, ...]
    time: tuple[int, int] | None


async def newest_by_code(
    view: View, type: str, where: Filter, most: int, limit: int, *, code: str = "code", interactions: str = "s"
) -> Newest:
    """The ids of the newest ``most`` of each code, and of those as new as the last of them.

    ``code``          the element, and its search parameter, by which they are grouped
    ``interactions``  those for one of which a scope is needed

    Raises Problem ``too_costly`` if more than ``limit`` visible resources match.
    """
    found = await view.index_entries(type, where, ((code, "token"), _DATE, _SUBJECT), limit + 1, interactions)
    if len(found) > limit:
        raise Problem("too_costly", f"More than {limit:,} resources match. Ask for a shorter time, a category or a code.")
    uncoded = [row.id for row in found if not any(entry.param == code for entry in row.entries)]
    texts = await _texts(view, type, code, uncoded)
    dated = await budget.each(lambda row: _dated(row, code, texts), found)
    groups: dict[_Key, list[_Dated]] = {}
    leaders = _Leaders()
    for one in dated:
        leaders.join(one.keys)
    await budget.give_way()
    for one in dated:
        groups.setdefault(leaders.of(one.keys[0]), []).append(one)
    chosen = [one for each in await budget.each(lambda group: _first(group, most), [*groups.values()]) for one in each]
    return [one.id for one in sorted(chosen, key=_recent_first)]


async def page(view: View, service: Service, query: Query, newest: Newest, applied: Sequence[Pair], path: str) -> list[bytes]:
    """A searchset of one page of them: ``query`` says how many and in which shape, and ``applied`` is for the links.

    Raises Problem ``invalid`` for a page link that leads nowhere any more.
    """
    (type,) = query.conditions
    links = [("self", bundle_json.query_url(service.base, path, [pair for pair in applied if pair[0] != "_page"]))]
    if query.count == 0:
        return bundle_json.searchset(await searchset_entries(view, query, [], service), links=links, total=len(newest))
    bound = binding(view, service, path, applied)
    ids = _after(newest, service.cursors.decrypt(query.cursor, bound) if query.cursor else None)
    ids_of_page = ids[: query.count]
    if len(ids) > len(ids_of_page):
        links.append(("next", next_link(service, path, applied, Position((), ids_of_page[-1]), bound)))
    matches = await view.in_order(type, ids_of_page)
    return bundle_json.searchset(await searchset_entries(view, query, matches, service), links=links, total=len(newest))


def _after(newest: Newest, position: Position | None) -> Newest:
    """Those after the last one of the page before.  Raises Problem ``invalid`` if that is none of them any more."""
    if position is None:
        return newest
    if position.id not in newest:
        raise Problem("invalid", STALE_LINK)
    return newest[newest.index(position.id) + 1 :]


async def _texts(view: View, type: str, code: str, ids: Sequence[str]) -> Mapping[str, str]:
    """The text of the code of each of these resources, as far as the caller sees it."""
    texts: dict[str, str] = {}
    for start in range(0, len(ids), _PORTION):
        for version in await view.peek(type, IdIs(frozenset(ids[start : start + _PORTION])), _PORTION):
            value = jsontext.members(version.body).get(code, b"{}")
            texts[version.id] = str(jsontext.parse(value).get("text", ""))
    return texts


def _dated(row: RowEntries, code: str, texts: Mapping[str, str]) -> _Dated:
    subject = tuple(sorted(_values(row.entries, "subject")))
    codings = sorted(_values(row.entries, code))
    text = texts.get(row.id, "")
    alone: _Key = ("text", text) if text else ("id", row.id)
    keys = tuple((subject, "coding", *coding) for coding in codings) or ((subject, *alone),)
    times = [(int(high or 0), int(low or 0)) for low, high in _values(row.entries, "date")]
    return _Dated(row.id, keys, max(times, default=None))


def _values(entries: Iterable[Entry], param: str) -> list[Any]:
    return [entry.value for entry in entries if entry.param == param]


class _Leaders:
    """Sets of keys that belong together; each has one of its keys as its leader."""

    def __init__(self) -> None:
        self._above: dict[_Key, _Key] = {}

    def of(self, key: _Key) -> _Key:
        """The leader of the set of this key."""
        while (above := self._above.setdefault(key, key)) != key:
            self._above[key] = self._above[above]
            key = above
        return key

    def join(self, keys: Sequence[_Key]) -> None:
        """Make one set of the sets of these keys."""
        for key in keys[1:]:
            self._above[self.of(key)] = self.of(keys[0])


def _first(group: Sequence[_Dated], most: int) -> list[_Dated]:
    ordered = sorted(group, key=_recent_first)
    last = ordered[:most][-1].time
    ties = [one for one in ordered[most:] if last is not None and one.time == last]
    return ordered[:most] + ties


def _recent_first(one: _Dated) -> _Key:
    return (True, 0, 0, one.id) if one.time is None else (False, -one.time[0], -one.time[1], one.id)
