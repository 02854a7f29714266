"""The profiles and the terminology of the packages in a store, and of the server's own guide.

Only what the operator has put there counts, never what a client has written; so a verdict is the same for every caller.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fhir_server import jsontext
from fhir_server.json_slices import value_in_steps
from fhir_server.package_data import data_folder
from fhir_server.packages.loading import StoredPackage
from fhir_server.packages.mark import package_of
from fhir_server.packages.product import GUIDE
from fhir_server.profiles.held_profiles import HeldProfile, HeldProfiles
from fhir_server.search import query
from fhir_server.search.filters import Filter, IdIs
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Store
from fhir_server.terminology.shipped import R4, Guide
from fhir_server.terminology.sources import Kind, Loaded, Terminology


def held_profiles(store: Store, stored: Sequence[StoredPackage]) -> HeldProfiles:
    """The profiles of these packages and of the guide."""
    held: dict[str, list[HeldProfile]] = {}
    for one in guide_profiles():
        held.setdefault(one.url, []).append(one)
    for package in stored:
        for profile in package.profiles:
            read = _reader(store, profile.row, package.label)
            held.setdefault(profile.url, []).append(HeldProfile(profile.url, profile.version, profile.type, package.label, read))
    ordered = {url: tuple(sorted(found, key=lambda one: _order(one.version))) for url, found in held.items()}
    return HeldProfiles(ordered, lambda label: Terminology((PackagedTerminology(store, label), R4(), Guide())))


def guide_profiles() -> list[HeldProfile]:
    """The profiles of the server's own guide, which are there without having been added."""
    folder = data_folder("ig")
    label = f"{GUIDE}#{json.loads((folder / 'package.json').read_bytes())['version']}"
    found = []
    for file in sorted((folder / "profiles").glob("*.json")):
        definition = json.loads(file.read_bytes())
        found.append(HeldProfile(definition["url"], definition["version"], definition["type"], label, _file_reader(file)))
    return found


def _file_reader(file: Path) -> Callable[[], Awaitable[Mapping[str, Any]]]:
    async def read() -> Mapping[str, Any]:
        value: Mapping[str, Any] = jsontext.parse(file.read_bytes())
        return value

    return read


def _reader(store: Store, row: str, label: str) -> Callable[[], Awaitable[Mapping[str, Any]]]:
    async def read() -> Mapping[str, Any]:
        type, _, id = row.partition("/")
        found = [one for one in await _packaged_rows(store, type, IdIs(frozenset({id}))) if package_of(one.body) == label]
        if not found:
            raise ValueError(f"the package {label} is being changed")
        value: Mapping[str, Any] = await value_in_steps(found[0].body)
        return value

    return read


async def _packaged_rows(store: Store, type: str, where: Filter) -> list[Row]:
    """The rows of a type that meet a condition and that packages have brought."""
    async with store.snapshot() as snapshot:
        page = await snapshot.find(type, where, Visibility.unrestricted(len(await snapshot.classes())), limit=100)
    return [row for row in page.rows if package_of(row.body)]


class PackagedTerminology:
    """A :class:`~fhir_server.terminology.sources.Source` of the rows that packages have brought, those of one package first."""

    def __init__(self, store: Store, label: str) -> None:
        self._store = store
        self._label = label

    async def find(self, kind: Kind, url: str, version: str = "") -> Loaded | None:
        """As :class:`~fhir_server.terminology.sources.Source`."""
        if any(sign in url for sign in ",|\\$"):
            return None
        pairs = [("url", url), *([("version", version)] if version else [])]
        rows = await _packaged_rows(self._store, kind, query.condition(kind, pairs, 0, ""))
        own = [row for row in rows if package_of(row.body) == self._label]
        found = [Loaded(sha256(row.body).digest(), await value_in_steps(row.body)) for row in own or rows]
        return max(found, key=lambda one: _order(str(one.resource.get("version", ""))), default=None)

    async def by_id(self, kind: Kind, id: str) -> Loaded | None:
        """None: profiles name value sets by their URLs."""
        return None

    async def supplements(self, url: str) -> Sequence[Loaded]:
        """None: they add no codes."""
        return ()

    async def maps_from(self, system: str) -> Sequence[Loaded]:
        """None: profiles need no ConceptMaps."""
        return ()


def _order(version: str) -> tuple[tuple[bool, int, str], ...]:
    """A later version is greater; numbers in it count as numbers."""
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in version.split("."))
