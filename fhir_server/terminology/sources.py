"""Where terminology comes from: sources that are asked one after the other, by canonical URL and version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from fhir_server.terminology.code_system import CodeSystem, compiled

Kind = Literal["CodeSystem", "ValueSet", "ConceptMap"]

_REMEMBERED: Final = 8  # code systems of one request
_KEPT_CONCEPTS: Final = 30_000
_KEPT_SYSTEMS: Final = 200


class Loaded(NamedTuple):
    """A resource.  ``key`` names its content: what is made of it can be kept under this key, and changes with the content."""

    key: Hashable
    resource: dict[str, Any]


class Source(Protocol):
    """Resources that one place has: the definitions of R4, what is stored and visible, a package."""

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        """The resource with this canonical URL and version; the latest one without a version."""

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        """The resource with this logical id, if the source has resources of this server."""

    async def supplements(self, url: str) -> Sequence[Loaded]:
        """The supplements to the code system with this URL."""

    async def maps_from(self, system: str) -> Sequence[Loaded]:
        """The ConceptMaps that map codes of this system."""


class Terminology:
    """The terminology that a caller sees: the first source that has a resource gives it.

    It is that of one question, which may name a code system thousands of times: so it remembers the last ones.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._systems: dict[tuple[str, str], CodeSystem | None] = {}

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        """The resource with this canonical URL, which may have a version after ``|``."""
        url, _, named = url.partition("|")
        for source in self._sources:
            if (found := await source.find(kind, url, version or named)) is not None:
                return found
        return None

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        """The resource with this logical id."""
        for source in self._sources:
            if (found := await source.by_id(kind, id)) is not None:
                return found
        return None

    async def code_system(self, url: str, version: str = "") -> CodeSystem | None:
        """The code system with this URL; None without one, and for one whose codes are not here."""
        if (url, version) not in self._systems:
            found = await self.find("CodeSystem", url, version)
            system = await compiled_once(found) if found is not None else None
            if len(self._systems) >= _REMEMBERED:
                self._systems.clear()
            self._systems[url, version] = system if system is not None and (system.concepts or system.is_complete) else None
        return self._systems[url, version]

    async def supplements(self, url: str) -> list[CodeSystem]:
        """The supplements to a code system, of all sources."""
        found = [one for source in self._sources for one in await source.supplements(url)]
        return [await compiled_once(one) for one in found]

    async def maps_from(self, system: str) -> list[Loaded]:
        """The ConceptMaps that map codes of a system, of all sources; of two with one URL, the first source's."""
        found: dict[str, Loaded] = {}
        for number, source in enumerate(self._sources):
            for one in await source.maps_from(system):
                found.setdefault(str(one.resource.get("url") or f"{number}:{len(found)}"), one)
        return list(found.values())


_compiled: OrderedDict[Hashable, CodeSystem] = OrderedDict()


async def compiled_once(found: Loaded) -> CodeSystem:
    """The compiled code system, kept for the next request; its key stands for the content, so nothing of a former one is served."""
    system = _compiled.get(found.key)
    if system is None:
        system = _compiled[found.key] = await compiled(found.resource)
    _compiled.move_to_end(found.key)
    while len(_compiled) > _KEPT_SYSTEMS or sum(len(kept.concepts) for kept in _compiled.values()) > _KEPT_CONCEPTS:
        _compiled.popitem(last=False)
    return system
