"""The terminology that is stored as resources, as one caller sees it, and the codes that a search asks for.

A CodeSystem, ValueSet or ConceptMap that the caller does not see, or that no scope covers, is as absent.  What a caller sees of it is
read for each request, so a write changes the next answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from fhir_server.errors import Problem
from fhir_server.json_slices import value_in_steps
from fhir_server.search import criteria
from fhir_server.search.filters import AllOf, Filter, HasCodeOf, IdIs
from fhir_server.terminology.expansion import Expander
from fhir_server.terminology.problems import malformed, not_loaded, unknown
from fhir_server.terminology.shipped import R4, Guide
from fhir_server.terminology.sources import Kind, Loaded, Terminology

if TYPE_CHECKING:
    from fhir_server.access.visible_versions import VisibleVersion

Find = Callable[[str, Filter, int], Awaitable["list[VisibleVersion]"]]
"""The visible rows of a type that meet a condition; none if no scope covers the type."""

_MOST: Final = 100
_NUMBERS: Final = re.compile(r"[0-9]+|[^0-9]+")
_ESCAPED: Final = re.compile(r"[\\,|$]")
_SHIPPED: Final = (R4(), Guide())


def terminology_of(find: Find) -> Terminology:
    """The terminology of a caller: what is stored and visible, then what ships with the server."""
    return Terminology((_Stored(find), *_SHIPPED))


async def codes_of(question: HasCodeOf, terminology: Terminology) -> Collection[tuple[str, str]]:
    """The (system, code) pairs that a search asks for.  Raises Problem ``invalid`` for what is not known or not loaded."""
    try:
        if question.relation == "in":
            return list(await _codes_in(question.name, terminology))
        system = await terminology.code_system(question.name)
        if system is None or not system.is_complete:
            raise not_loaded(question.name)
        concept = system.find(question.code)
        if concept is None:
            raise malformed(f"The code system {question.name[:200]!r} has no code {question.code[:200]!r}.")
        related = system.ancestors if question.relation == "above" else system.descendants
        codes = related(concept.code) if system.subsumes else {concept.code}
        return [(question.name, code) for code in codes]
    except Problem as problem:
        if problem.kind not in ("unprocessable", "not_found"):
            raise
        raise Problem("invalid", str(problem), problem.issues) from None


async def _codes_in(name: str, terminology: Terminology) -> Collection[tuple[str, str]]:
    stored = name.removeprefix("ValueSet/")
    found = await terminology.find("ValueSet", name) if stored == name else await terminology.by_id("ValueSet", stored)
    if found is None:
        raise unknown("ValueSet", name)
    return (await Expander(terminology).expand(found.resource, (name,))).keys()


class _Stored:
    """A :class:`~fhir_server.terminology.sources.Source` of visible rows."""

    def __init__(self, find: Find) -> None:
        self._find = find

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        pairs = [("url", url), *([("version", version)] if version else [])]
        found = await self._matching(kind, pairs)
        return max(found, key=lambda one: _version_order(one.resource), default=None)

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        found = [await _loaded(one.body) for one in await self._find(kind, IdIs(frozenset({id})), 1)]
        return found[0] if found else None

    async def supplements(self, url: str) -> Sequence[Loaded]:
        return await self._matching("CodeSystem", [("supplements", url)])

    async def maps_from(self, system: str) -> Sequence[Loaded]:
        return await self._matching("ConceptMap", [("source-system", system)])

    async def _matching(self, kind: Kind, pairs: Sequence[tuple[str, str]]) -> list[Loaded]:
        where = [criteria.criterion(kind, name, _ESCAPED.sub(r"\\\g<0>", value), 0, "") for name, value in pairs]
        return [await _loaded(one.body) for one in await self._find(kind, AllOf(tuple(where)), _MOST)]


async def _loaded(body: bytes) -> Loaded:
    return Loaded(sha256(body).digest(), await value_in_steps(body))


def _version_order(resource: dict[str, Any]) -> tuple[Any, ...]:
    """A later version is greater; numbers in it count as numbers.  An active resource comes before others of its version."""
    parts = _NUMBERS.findall(str(resource.get("version", "")))
    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in parts[:20]), resource.get("status") == "active"
