"""The resources that ``_include`` and ``_revinclude`` add to a page (http://hl7.org/fhir/R4/search.html#revinclude).

Each step is a question to the caller's View.  With ``:iterate`` steps begin at included resources, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fhir_server import budget, jsontext
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.json_slices import value_in_steps
from fhir_server.resources.references import LiteralReference, parse_reference
from fhir_server.resources.server_base import server_base
from fhir_server.search import index
from fhir_server.search.criteria import refers
from fhir_server.search.filters import IdIs
from fhir_server.search.query import Query
from fhir_server.search.result_parameters import Include

MAX_INCLUDED: Final = 1000
"""Largest number of resources that _include and _revinclude add to one page."""


async def included(view: View, query: Query, matches: Sequence[VisibleVersion], base: str) -> tuple[list[VisibleVersion], bool]:
    """The visible resources that the query's includes add to these matches, and whether some were left out: they are too many."""
    if not query.includes and not query.revincludes:
        return [], False
    return await _Included(view, query, matches, base).collect(matches)


class _Included:
    """Collects what the includes of a query add to matches."""

    def __init__(self, view: View, query: Query, matches: Sequence[VisibleVersion], base: str) -> None:
        self._view = view
        self._query = query
        self._base = base
        self._matches = {_name(version) for version in matches}
        self._current: dict[str, VisibleVersion] = {}
        self._past: dict[str, VisibleVersion] = {}
        self._shown = {f"{_name(version)}/{version.version}" for version in matches}

    async def collect(self, matches: Sequence[VisibleVersion]) -> tuple[list[VisibleVersion], bool]:
        sources: Sequence[VisibleVersion] = matches
        includes, reverses = self._query.includes, self._query.revincludes
        while sources and (includes or reverses) and len(self._current) <= MAX_INCLUDED:
            known = set(self._current)
            for include in includes:
                await self._include(include, sources)
            for reverse in reverses:
                await self._include_reverse(reverse, sources)
            sources = [version for name, version in self._current.items() if name not in known]
            includes = tuple(include for include in includes if include.iterates)
            reverses = tuple(reverse for reverse in reverses if reverse.iterates)
        shown = self._shown | {f"{name}/{version.version}" for name, version in self._current.items()}
        found = [*self._current.values(), *(version for name, version in self._past.items() if name not in shown)]
        return found[:MAX_INCLUDED], len(found) > MAX_INCLUDED

    async def _include(self, include: Include, sources: Sequence[VisibleVersion]) -> None:
        references = await self._references(include, sources)
        wanted = {(one.type, one.id) for one in references if not one.version}
        for type in sorted({type for type, _ in wanted}):
            ids = frozenset(id for of, id in wanted if of == type and f"{type}/{id}" not in self._matches | self._current.keys())
            if ids:
                self._add(await self._view.find_included(type, IdIs(ids), MAX_INCLUDED + 1))
        for one in [reference for reference in references if reference.version][: MAX_INCLUDED + 1]:
            version = await self._view.find_included_version(one.type, one.id, one.version)
            if version is not None:
                self._past[f"{one.type}/{one.id}/{one.version}"] = version

    async def _include_reverse(self, reverse: Include, sources: Sequence[VisibleVersion]) -> None:
        allowed = (reverse.target_type,) if reverse.target_type else index.parameters(reverse.type)[reverse.param].targets
        targets = frozenset(_name(version) for version in sources if version.type in allowed)
        if targets:
            where = refers(reverse.type, reverse.param, targets)
            self._add(await self._view.find_included(reverse.type, where, MAX_INCLUDED + 1))

    def _add(self, versions: Iterable[VisibleVersion]) -> None:
        for version in versions:
            if _name(version) not in self._matches:
                self._current.setdefault(_name(version), version)

    async def _references(self, include: Include, sources: Sequence[VisibleVersion]) -> list[LiteralReference]:
        """The references to this server, each once, in the visible bodies that the include's search parameter selects."""
        server = server_base(self._base)
        texts: dict[str, None] = {}
        names = index.members_read(include.type, include.param, self._base)
        for version in sources:
            if version.type == include.type:
                read = {name: await value_in_steps(text) for name, text in jsontext.members_named(version.body, names).items()}
                texts |= dict.fromkeys(index.reference_texts(include.type, include.param, read, self._base))
                await budget.give_way()
        found = (parse_reference(text if (relative := server.relative(text)) is None else relative) for text in texts)
        return [one for one in found if one and one.kind == "relative" and include.target_type in (None, one.type)]


def _name(version: VisibleVersion) -> str:
    return f"{version.type}/{version.id}"
