"""Index entries that a caller sees say nothing that the caller is not served: words, texts, codes, dates, positions, pairs of values.

References are left out: whether their target is visible is asked when they are searched by (``search/hidden_references.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.search import composites, index, words
from fhir_server.search.filters import EVERYTHING, IdIs
from fhir_server.search.rows import Entry
from tests.noninterference.case_generator import case
from tests.noninterference.paired_server import BASE, World

_SEEDS = range(30)
_OF_MODIFIERS = (("text", "string"), ("identifier", "token"), ("of-type", "token"))


def _parameters(type: str) -> set[tuple[str, str]]:
    """The (code, kind) of all entries of a type that are about a part of a resource, without references."""
    kinds = {(code, parameter.kind.entry) for code, parameter in index.parameters(type).items()}
    more = {(f"{code}:{modifier}", kind) for code, _ in kinds for modifier, kind in _OF_MODIFIERS}
    pairs = {(code, kind) for code in composites.composites(type) for kind in ("token", "quantity", "date")}
    return {
        (code, kind)
        for code, kind in (kinds | more | pairs | {(code, words.KIND) for code in words.parameters(type)})
        if kind != "reference" and code != "_lastUpdated"
    }


def _told(type: str, version: VisibleVersion) -> set[tuple[str, str, object]]:
    """What the entries of the resource as it is served say."""
    body = jsontext.parse(version.body)
    return {fact for entry in (*index.entries(type, body, BASE), *words.entries(type, body)) for fact in _facts(entry)}


def _facts(entry: Entry) -> Iterator[tuple[str, str, object]]:
    """What an entry says: each word, or one value."""
    values = str(entry.value[0]).split() if entry.kind == words.KIND else [entry.value]
    if entry.kind == "quantity":  # stores keep the number as one of another type
        values = [(float(entry.value[0] or 0), *entry.value[1:])]
    return ((entry.param, entry.kind, value) for value in values)


async def _untold(seed: int) -> tuple[int, list[str]]:
    """How many facts the caller of a case sees in the index, and those that the resources as they are served do not say."""
    drawn, world = case(seed), World("memory:", seed)
    await world.open()
    for write in drawn.writes(0):
        await world.write(write)
    token = await world.token(drawn.caller)
    types = sorted({write.type for write in drawn.writes(0)})

    async def compare(view: View) -> tuple[int, list[str]]:
        seen, untold = 0, []
        for type in (type for type in types if view.permissions.scopes(type, "s")):
            for row in await view.index_entries(type, EVERYTHING, _parameters(type), 1000):
                (version,) = await view.find_included(type, IdIs(frozenset({row.id})), 1)
                found = {fact for entry in row.entries for fact in _facts(entry)}
                seen += len(found)
                untold += [f"{type}/{row.id} {fact}" for fact in found - _told(type, version)]
        return seen, untold

    request = Request("GET", ("Patient",), (), {"authorization": f"Bearer {token}"}, b"", world.clock.now)
    found = await world.parts.service.read_with_view(request, AuditContext(), compare)
    await world.close()
    return found


def test_visible_entries_say_nothing_that_is_not_served() -> None:
    found = [asyncio.run(_untold(seed)) for seed in _SEEDS]
    assert [untold for _, untold in found if untold] == []
    assert sum(seen for seen, _ in found) > 5_000


def test_comparison_notices_words_of_parts_that_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = words.entries
    monkeypatch.setattr(words, "entries", lambda type, resource, apart=(): exact(type, resource))
    assert any(asyncio.run(_untold(seed))[1] for seed in _SEEDS)
