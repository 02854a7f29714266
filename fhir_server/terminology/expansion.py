"""Which codes a value set has (http://hl7.org/fhir/R4/valueset.html#compositions): all of them, or whether one code is among them.

A value set whose codes cannot all be known is refused: its code system is not loaded, or there are too many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from fhir_server import budget
from fhir_server.terminology.code_system import CodeSystem, Concept
from fhir_server.terminology.filters import test_of
from fhir_server.terminology.problems import NotLoadedError, malformed, not_loaded, too_costly, unknown
from fhir_server.terminology.sources import Terminology

MAX_CODES: Final = 10_000
_MAX_IMPORTS: Final = 200
_MAX_DEPTH: Final = 20
_LIMITED: Final = frozenset({"filter", "count", "offset", "limitedExpansion", "date", "context", "exclude-system"})

Json = Mapping[str, Any]
Key = tuple[str, str]


class Code(NamedTuple):
    """A code of a value set."""

    system: str
    version: str
    code: str
    display: str = ""
    designations: tuple[Json, ...] = ()
    is_abstract: bool = False
    is_inactive: bool = False


@dataclass(frozen=True, slots=True)
class SystemVersions:
    """Versions of code systems that a request asks for: by default, in any case, or as a check."""

    default: Mapping[str, str] = field(default_factory=dict)
    forced: Mapping[str, str] = field(default_factory=dict)
    checked: Mapping[str, str] = field(default_factory=dict)


class Expander:
    """Follows value sets for one request.  ``used`` has each code system that was looked into, with its version."""

    def __init__(self, terminology: Terminology, versions: SystemVersions | None = None) -> None:
        self._terminology = terminology
        self._versions = versions or SystemVersions()
        self._done: dict[str, dict[Key, Code]] = {}
        self._imports = 0
        self.used: dict[str, str] = {}

    async def expand(self, value_set: Json, importing: tuple[str, ...] = ()) -> dict[Key, Code]:
        """All codes in order.  Raises Problem ``unprocessable`` or ``not_found``."""
        if "compose" not in value_set:
            return self._listed(value_set)
        try:
            return await self._composed(value_set["compose"], importing)
        except NotLoadedError:
            if not _has_complete_expansion(value_set):
                raise
            return self._listed(value_set)

    async def find(self, value_set: Json, system: str, code: str, version: str = "", importing: tuple[str, ...] = ()) -> Code | None:
        """The code as the value set has it, or None.  Looks only into the code systems that decide it."""
        compose = value_set.get("compose")
        if compose is None:
            return self._listed(value_set).get((system, code))
        try:
            found = None
            for include in compose.get("include", ()):
                found = found or await self._in_part(include, system, code, version, importing)
            for exclude in compose.get("exclude", ()) if found is not None else ():
                if await self._in_part(exclude, system, code, "", importing) is not None:
                    return None
        except NotLoadedError:
            if not _has_complete_expansion(value_set):
                raise
            return self._listed(value_set).get((system, code))
        return None if found is not None and found.is_inactive and compose.get("inactive") is False else found

    # -- all codes -------------------------------------------------------------------------------------------------

    async def _composed(self, compose: Json, importing: tuple[str, ...]) -> dict[Key, Code]:
        codes: dict[Key, Code] = {}
        for include in compose.get("include", ()):
            for key, code in (await self._part(include, importing)).items():
                codes.setdefault(key, code)
            _require_few(codes)
            await budget.give_way()
        for exclude in compose.get("exclude", ()):
            excluded = await self._part(exclude, importing)
            codes = {key: code for key, code in codes.items() if key not in excluded}
            await budget.give_way()
        if compose.get("inactive") is False:
            codes = {key: code for key, code in codes.items() if not code.is_inactive}
        return codes

    async def _part(self, part: Json, importing: tuple[str, ...]) -> dict[Key, Code]:
        found = await self._of_system(part) if "system" in part else None
        for url in part.get("valueSet", ()):
            imported = await self._imported(url, importing)
            found = dict(imported) if found is None else {key: code for key, code in found.items() if key in imported}
            await budget.give_way()
        return found or {}

    async def _of_system(self, part: Json) -> dict[Key, Code]:
        url, version = part["system"], str(part.get("version", ""))
        if "concept" in part:
            _require_few(part["concept"])
            system = await self._system(url, version, required=False)
            codes = [_named(one, url, version, system) for one in part["concept"]]
        else:
            system = await self._system(url, version)
            assert system is not None
            if not system.is_complete:
                raise not_loaded(url, version)
            test = test_of(part.get("filter", ()), system)
            concepts = list(system.concepts.values())
            passed = await budget.each(test, concepts)
            chosen = [concept for concept, passes in zip(concepts, passed, strict=True) if passes]
            _require_few(chosen)
            codes = await budget.each(lambda concept: _of_concept(concept, system), chosen)
        return {(code.system, code.code): code for code in codes}

    async def _imported(self, url: str, importing: tuple[str, ...]) -> dict[Key, Code]:
        if url not in self._done:
            value_set, inside = await self._import(url, importing)
            self._done[url] = await self.expand(value_set, inside)
        return self._done[url]

    # -- one code --------------------------------------------------------------------------------------------------

    async def _in_part(self, part: Json, system: str, code: str, version: str, importing: tuple[str, ...]) -> Code | None:
        await budget.give_way()
        found: Code | None = None
        if "system" in part:
            if part["system"] != system or (version and part.get("version", version) != version):
                return None
            found = await self._in_system(part, code)
            if found is None:
                return None
        for url in part.get("valueSet", ()):
            value_set, inside = await self._import(url, importing)
            inner = await self.find(value_set, system, code, version, inside)
            if inner is None:
                return None
            found = found or inner
        return found

    async def _in_system(self, part: Json, code: str) -> Code | None:
        url, version = part["system"], str(part.get("version", ""))
        if "concept" in part:
            system = await self._system(url, version, required=False)
            return next((_named(one, url, version, system) for one in part["concept"] if one.get("code") == code), None)
        system = await self._system(url, version)
        assert system is not None
        concept = system.find(code)
        if concept is None and not system.is_complete:
            raise not_loaded(url, version)
        return _of_concept(concept, system) if concept is not None and test_of(part.get("filter", ()), system)(concept) else None

    # -- what both need --------------------------------------------------------------------------------------------

    async def _import(self, url: str, importing: tuple[str, ...]) -> tuple[Json, tuple[str, ...]]:
        self._imports += 1
        if url in importing:
            raise malformed(f"The value set {url[:300]!r} includes itself.")
        if len(importing) >= _MAX_DEPTH or self._imports > _MAX_IMPORTS:
            raise too_costly("The value set includes too many others.")
        found = await self._terminology.find("ValueSet", url)
        if found is None:
            raise unknown("ValueSet", url)
        await budget.give_way()
        return found.resource, (*importing, url)

    async def _system(self, url: str, version: str, *, required: bool = True) -> CodeSystem | None:
        versions = self._versions
        wanted = versions.forced.get(url) or version or versions.default.get(url, "")
        system = await self._terminology.code_system(url, wanted)
        if system is None:
            if required:
                raise not_loaded(url, wanted)
            return None
        checked = versions.checked.get(url, system.version)
        if checked != system.version:
            raise not_loaded(url, checked)
        self.used[url] = system.version
        return system

    def _listed(self, value_set: Json) -> dict[Key, Code]:
        """The codes of the expansion that the value set itself has."""
        if not _has_complete_expansion(value_set):
            raise malformed("The value set has no compose, and no complete expansion.")
        codes = {}
        for one in contained(value_set["expansion"].get("contains", ())):
            if "code" in one and not one.get("abstract"):
                system, inactive = str(one.get("system", "")), bool(one.get("inactive"))
                designations = tuple(one.get("designation", ()))
                code = Code(system, str(one.get("version", "")), one["code"], str(one.get("display", "")), designations, False, inactive)
                codes[system, code.code] = code
        _require_few(codes)
        return codes


def contained(contains: Sequence[Json]) -> Iterator[Json]:
    """The entries of an expansion, with those inside of them, in order."""
    waiting = list(reversed(contains))
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(one.get("contains", ()))


def _has_complete_expansion(value_set: Json) -> bool:
    expansion = value_set.get("expansion")
    if expansion is None or expansion.get("extension") or expansion.get("offset"):
        return False
    if any(parameter.get("name") in _LIMITED for parameter in expansion.get("parameter", ())):
        return False
    entries = list(contained(expansion.get("contains", ())))
    return int(expansion.get("total", 0)) <= len(entries)


def _require_few(codes: Any) -> None:
    if len(codes) > MAX_CODES:
        raise too_costly(f"The value set has more than {MAX_CODES} codes.")


def _of_concept(concept: Concept, system: CodeSystem) -> Code:
    return Code(system.url, system.version, concept.code, concept.display, concept.designations, concept.is_abstract, concept.is_inactive)


def _named(one: Json, url: str, version: str, system: CodeSystem | None) -> Code:
    """A code that a value set lists; its display is the value set's, otherwise that of the code system."""
    concept = system.find(str(one.get("code"))) if system is not None else None
    listed = tuple(one.get("designation", ()))
    if concept is None:
        return Code(url, version, str(one.get("code")), str(one.get("display", "")), listed)
    of_system = _of_concept(concept, system) if system is not None else None
    assert of_system is not None
    return of_system._replace(
        code=str(one.get("code")), display=str(one.get("display") or concept.display), designations=listed or concept.designations
    )
