"""The profiles of a server, compiled when they are first needed.

What one package's profile names is looked for in that package first, so that two versions of a guide do not mix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.profiles.elements import ElementNode, Profile, is_core, profile_of
from fhir_server.profiles.known import Known
from fhir_server.terminology.expansion import Expander
from fhir_server.terminology.sources import Loaded, Terminology

_KEPT_ANSWERS: Final = 20_000


class HeldProfile(NamedTuple):
    """A profile that is here: canonical URL, business version, the type it constrains, the package that has it, and how it is read."""

    url: str
    version: str
    type: str
    package: str
    read: Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(slots=True)
class PackageKnowledge:
    """What has been compiled for the profiles of one package."""

    terminology: Terminology
    known: Known = field(default_factory=Known)
    value_sets: dict[str, Loaded | None] = field(default_factory=dict)
    answers: dict[tuple[str, str, str], bool | None] = field(default_factory=dict)

    async def is_member(self, url: str, system: str, code: str) -> bool | None:
        """Whether a code is in a value set; None if that is not known here.  A code without a system is that of any system in it."""
        asked = (url, system, code)
        if asked not in self.answers:
            if len(self.answers) >= _KEPT_ANSWERS:
                self.answers.clear()
            self.answers[asked] = await self._member(url, system, code)
        return self.answers[asked]

    async def _member(self, url: str, system: str, code: str) -> bool | None:
        if not system:
            codes = await self.codes(url)
            return None if codes is None else any(other == code for _, other in codes)
        found = await self._value_set(url)
        if found is None:
            return None
        try:
            return await Expander(self.terminology).find(found.resource, system, code) is not None
        except Problem as problem:
            if problem.kind not in ("unprocessable", "not_found"):
                raise
            return None

    async def codes(self, url: str) -> frozenset[tuple[str, str]] | None:
        """All codes of a value set; None if they cannot all be known here."""
        if url not in self.known.codes:
            found = await self._value_set(url)
            try:
                codes = frozenset(await Expander(self.terminology).expand(found.resource)) if found is not None else None
            except Problem as problem:
                if problem.kind not in ("unprocessable", "not_found"):
                    raise
                codes = None
            self.known.codes[url] = codes
        return self.known.codes[url]

    async def _value_set(self, url: str) -> Loaded | None:
        if url not in self.value_sets:
            self.value_sets[url] = await self.terminology.find("ValueSet", url)
        return self.value_sets[url]


class HeldProfiles:
    """The profiles that are here, with the latest version of each last.  ``terminology``: what a package's profiles go by."""

    def __init__(self, held: Mapping[str, tuple[HeldProfile, ...]], terminology: Callable[[str], Terminology]) -> None:
        self._held = held
        self._terminology = terminology
        self._packages: dict[str, PackageKnowledge] = {}
        self._unusable: dict[tuple[str, str], str] = {}
        self._loading = asyncio.Lock()

    def find(self, canonical: str, package: str = "") -> HeldProfile | None:
        """The profile with this canonical URL: of the version after ``|``, of this package, or else the latest."""
        url, _, version = canonical.partition("|")
        found = [one for one in self._held.get(url, ()) if version in ("", one.version)]
        return next((one for one in found if one.package == package), found[-1] if found else None)

    async def profile(self, held: HeldProfile) -> tuple[PackageKnowledge, Profile]:
        """A profile ready for checks, with all that it names.  Raises ValueError, with the reason, if nothing can be checked against it."""
        async with self._loading:
            package = self._packages.setdefault(held.package, PackageKnowledge(self._terminology(held.package)))
            canonical = f"{held.url}|{held.version}"
            await self._load(package, held.package, canonical)
            profile = package.known.profiles[canonical]
            if profile is None:
                raise ValueError(self._unusable[held.package, canonical])
            return package, profile

    async def extensions(self, package: PackageKnowledge, label: str, urls: frozenset[str]) -> None:
        """Prepare the profiles of extensions with these URLs, as far as they are here."""
        for url in sorted(urls):
            if self.find(url, label) is not None:
                async with self._loading:
                    await self._load(package, label, url)

    async def _load(self, package: PackageKnowledge, label: str, canonical: str) -> None:
        try:
            await self._load_all(package, label, canonical)
        except BaseException:  # the request ended: what is compiled in part would be taken for the whole
            self._packages.pop(label, None)
            raise

    async def _load_all(self, package: PackageKnowledge, label: str, canonical: str) -> None:
        waiting = [canonical]
        while waiting:
            name = waiting.pop()
            if name in package.known.profiles:
                continue
            profile = await self._compiled(name, label)
            package.known.profiles[name] = profile
            for node in _nodes(profile.root) if profile is not None else ():
                waiting += [url for option in node.types for url in option.profiles]
                for url in (url for option in node.types for url in option.targets if not is_core(url)):
                    target = self.find(url, label)
                    package.known.targets[url] = target.type if target is not None else ""
                for binding in (binding for one in node.slices.values() for inner in _nodes(one) for binding in inner.bindings):
                    await package.codes(binding.value_set)
            waiting += [profile.base] if profile is not None and profile.base else []
            await budget.give_way()

    async def _compiled(self, canonical: str, label: str) -> Profile | None:
        held = self.find(canonical, label)
        if held is None:
            return None
        try:
            profile = profile_of(await held.read(), held.package)
        except ValueError as error:
            self._unusable[label, canonical] = str(error)
            return None
        if profile.base and self.find(profile.base, label) is None:
            self._unusable[label, canonical] = f"it has no snapshot, and its base {profile.base} is not here"
            return None
        return profile


def _nodes(node: ElementNode) -> Iterator[ElementNode]:
    yield node
    for inner in (*node.children.values(), *node.slices.values()):
        yield from _nodes(inner)
