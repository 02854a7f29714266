"""Puts the definitions of packages into the store, lists and removes them.

They are rows like any other, of the data class of directories: every caller whose scopes cover the type sees them, by the one condition
language, on every store.  Their mark (:mod:`~fhir_server.packages.mark`) keeps clients from writing them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from fhir_server import jsontext
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent.labeling import Labeler
from fhir_server.errors import Problem
from fhir_server.packages.archive import Package
from fhir_server.packages.mark import SYSTEM, package_of
from fhir_server.resources.references import ID
from fhir_server.search import query
from fhir_server.search.filters import Filter
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Store, Transaction
from fhir_server.writing.draft import Draft, parse_draft
from fhir_server.writing.meta import changes_nothing, with_mark
from fhir_server.writing.search_parameters import SearchParameterFollower
from fhir_server.writing.writer import ResourceWriter

KIND: Final = "package"
REVISION: Final = "package-revision"
_TOGETHER: Final = 1024 * 1024  # bytes of definitions that are stored in one transaction


class StoredProfile(msgspec.Struct, frozen=True):
    """A profile of a package: canonical URL, business version, the type it constrains, and ``Type/id`` of its row."""

    url: str
    version: str
    type: str
    row: str


class StoredPackage(msgspec.Struct, frozen=True):
    """A package in the store: its name, version and dependencies, and ``Type/id`` of its rows.

    ``profiles``  its profiles, those of extensions and datatypes too
    ``servers``   canonical URLs of what it requires of servers (CapabilityStatements)
    """

    name: str
    version: str
    dependencies: dict[str, str]
    rows: tuple[str, ...]
    profiles: tuple[StoredProfile, ...] = ()
    servers: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``name#version``."""
        return f"{self.name}#{self.version}"


@dataclass(slots=True)
class AddReport:
    """What became of a package's definitions.

    ``stored``, ``present``  how many were stored, and how many were there already, from this package or another one
    ``refused``  names of those that are not valid R4, with the reason
    ``unused``   names of SearchParameters that add no parameter to the server's, with the reason
    ``missing``  the packages that it depends on and that are not in the store, as ``name#version``
    """

    stored: int = 0
    present: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class Packages:
    """The packages of a store.  ``clock`` returns the instant of a change."""

    def __init__(self, store: Store, labeler: Labeler, base: str, clock: Callable[[], int]) -> None:
        self._store = store
        self._labeler = labeler
        self._base = base
        self._clock = clock

    async def all(self) -> list[StoredPackage]:
        """The packages in the store, by name and version."""
        return await stored_packages(self._store)

    async def add(self, package: Package) -> AddReport:
        """Store the definitions of a package.  Adding it again stores nothing; after an interruption, only what is missing."""
        report = AddReport()
        rows: list[str] = []
        profiles: list[StoredProfile] = []
        servers: list[str] = []
        for drafts in self._portions(package, report):
            added, stored, unused = await self._store.write(lambda tx, drafts=drafts: self._write(tx, drafts, package.label))  # type: ignore[misc]
            report.stored += stored
            report.unused += unused
            report.present += len(drafts) - stored
            rows += added
            profiles += [_profile(draft, row) for row, draft in added.items() if _is_profile(draft.value)]
            servers += [draft.value["url"] for draft in added.values() if _is_of_servers(draft.value)]
        record = StoredPackage(package.name, package.version, dict(package.dependencies), tuple(rows), tuple(profiles), tuple(servers))
        await self._store.key_values.put(KIND, package.label, msgspec.json.encode(record), MAX_INSTANT)
        await self._changed()
        names = {one.name for one in await self.all()}
        report.missing = [f"{name}#{version}" for name, version in package.dependencies.items() if name not in names]
        return report

    async def remove(self, label: str) -> int:
        """Delete the definitions of the package ``name#version`` and forget it.  Returns how many rows were deleted.

        Raises ValueError, with a message for the operator, if it is not there, or if another package depends on it alone.
        """
        stored = await self.all()
        found = next((one for one in stored if one.label == label), None)
        if found is None:
            raise ValueError(f"There is no package {label}. See fhir-server package list.")
        others = [one for one in stored if one.label != label]
        needing = [one.label for one in others if found.name in one.dependencies]
        if needing and all(one.name != found.name for one in others):
            raise ValueError(f"{', '.join(needing)} depends on {label}; remove that first.")
        deleted = 0
        for start in range(0, len(found.rows), 100):
            part = found.rows[start : start + 100]
            deleted += await self._store.write(lambda tx, part=part: self._delete(tx, part, label))  # type: ignore[misc]
        await self._store.key_values.pop(KIND, label, 0)
        await self._changed()
        return deleted

    async def _changed(self) -> None:
        """Have servers read again what the packages hold."""
        await self._store.key_values.put(REVISION, "", secrets.token_bytes(8), MAX_INSTANT)

    def _portions(self, package: Package, report: AddReport) -> Iterator[list[Draft]]:
        drafts: list[Draft] = []
        size = 0
        for name, text in sorted(package.definitions.items()):
            try:
                draft = parse_draft(text, base=self._base)
            except Problem as problem:
                report.refused.append((name.rpartition("/")[2], str(problem)))
                continue
            drafts.append(with_mark(draft, (SYSTEM, package.label), f"urn:fhir-package:{package.label}"))
            size += len(text)
            if size > _TOGETHER:
                yield drafts
                drafts, size = [], 0
        if drafts:
            yield drafts

    async def _write(self, tx: Transaction, drafts: Iterable[Draft], label: str) -> tuple[dict[str, Draft], int, list[tuple[str, str]]]:
        """Store what is not there.

        Returns the package's rows among them, by name, how many were stored, and which SearchParameters add nothing, and why.
        """
        follower = SearchParameterFollower(tx, refuses=False)
        writer = ResourceWriter(tx, self._labeler, self._base, self._clock(), parameters=follower)
        names: dict[str, Draft] = {}
        stored = 0
        for draft in drafts:
            if await self._is_of_other_package(tx, draft, label):
                continue
            id, current = await self._place(tx, draft, label)
            names[f"{draft.type}/{id}"] = draft
            if current is None or current.interaction == "delete" or not changes_nothing(draft, current.body):
                await writer.write(draft, id, takes_labels=True, previous=current)
                stored += 1
        return names, stored, follower.unused

    async def _is_of_other_package(self, tx: Transaction, draft: Draft, label: str) -> bool:
        """Whether another package has brought the same definition: the same URL and business version."""
        url, version = draft.value.get("url"), draft.value.get("version")
        if not url or "|" in url or "," in url:
            return False
        rows = await self._all_with(tx, draft.type, [("url", jsontext.parse(jsontext.dumps(url)))])
        return any(package_of(row.body) not in ("", label) and _version(row) == version for row in rows)

    async def _all_with(self, tx: Transaction, type: str, pairs: list[tuple[str, str]]) -> tuple[Row, ...]:
        where: Filter = query.condition(type, pairs, self._clock(), self._base)
        visibility = Visibility.unrestricted(len(await tx.classes()), self._clock())
        return tuple((await tx.find(type, where, visibility, limit=100)).rows)

    async def _place(self, tx: Transaction, draft: Draft, label: str) -> tuple[str, Row | None]:
        """The id for a definition and the row that is there: the definition's own id, unless a row from elsewhere has it."""
        own = str(draft.id or "")
        digest = hashlib.sha256(f"{label} {draft.type}/{own}".encode()).hexdigest()[:16]
        candidates = [id for id in (own, f"{own}-{label.partition('#')[2]}", digest) if ID.fullmatch(id)]
        rows = [(id, await tx.read_unfiltered(draft.type, id)) for id in candidates]
        for id, row in rows:
            if row is not None and row.interaction != "delete" and package_of(row.body) == label:
                return id, row
        return next((id, row) for id, row in rows if row is None or row.interaction == "delete")

    async def _delete(self, tx: Transaction, names: Iterable[str], label: str) -> int:
        writer = ResourceWriter(tx, self._labeler, self._base, self._clock())
        deleted = 0
        for name in names:
            row = await tx.read_unfiltered(*name.split("/"))
            if row is not None and row.interaction != "delete" and package_of(row.body) == label:
                await writer.delete(row)
                deleted += 1
        return deleted


def _version(row: Row) -> Any:
    return jsontext.parse(jsontext.members(row.body).get("version", b"null"))


async def stored_packages(store: Store) -> list[StoredPackage]:
    """The packages in a store, by name and version."""
    found = [msgspec.json.decode(value, type=StoredPackage) for _, value in await store.key_values.list_all(KIND, 0)]
    return sorted(found, key=lambda one: (one.name, one.version))


def _is_profile(definition: dict[str, Any]) -> bool:
    return definition["resourceType"] == "StructureDefinition" and definition.get("derivation") == "constraint"


def _profile(draft: Draft, row: str) -> StoredProfile:
    value = draft.value
    return StoredProfile(value["url"], str(value.get("version", "")), value["type"], row)


def _is_of_servers(definition: dict[str, Any]) -> bool:
    """Whether a definition is a CapabilityStatement of what servers must do, and has a URL to claim."""
    is_requirement = definition["resourceType"] == "CapabilityStatement" and definition["kind"] == "requirements"
    return is_requirement and "url" in definition and any(rest.get("mode") == "server" for rest in definition.get("rest", ()))
