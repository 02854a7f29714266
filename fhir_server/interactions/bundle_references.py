"""What a transaction finds by search before it writes: the matches of conditional entries and of conditional references.

http://hl7.org/fhir/R4/http.html#trules.  All these searches see the store as it was before the transaction, through the caller's View:
a hidden resource counts as absent.  An entry of the same transaction is named by its fullUrl; it is not found by search.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote

import msgspec

from fhir_server import jsontext
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import conditional_write, criteria
from fhir_server.interactions.messages import Request, format_query
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.writing.draft import Draft
from fhir_server.writing.references import replace_references

Pairs = Sequence[tuple[str, str]]
_CHANGES: Final = ("PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One parsed entry.

    ``index``  its index in the Bundle
    ``draft``  the resource of a create or update
    ``patch``  the text of a patch
    ``id``     the logical id that this resource gets
    ``matched``  ``Type/id`` of the resources that the criteria of a conditional update, patch or delete match
    """

    index: int
    full_url: str
    request: Request
    draft: Draft | None = None
    id: str = ""
    matched: tuple[str, ...] = ()
    patch: bytes = b""

    @property
    def is_conditional_change(self) -> bool:
        """Whether its URL has criteria for what it changes."""
        return self.request.method in _CHANGES and len(self.request.path) == 1

    @property
    def changed(self) -> tuple[str, ...]:
        """``Type/id`` of the rows that a PUT, PATCH or DELETE writes."""
        if self.request.method not in _CHANGES:
            return ()
        if not self.is_conditional_change:
            return ("/".join(self.request.path),)
        return self.matched or ((self.name,) if self.name else ())

    @property
    def name(self) -> str:
        """``Type/id`` of the row that this resource becomes, or that the patch changes."""
        return f"{self.request.path[0]}/{self.id}" if self.draft or self.patch else ""


async def resolve_by_search(
    entries: Sequence[BundleEntry], links: BundleLinks, context: WriteContext, service: Service
) -> list[BundleEntry]:
    """The entries with their matches; links to an entry with a match lead to it, and conditional references to theirs.

    Raises Problem ``unprocessable`` if a conditional reference does not match exactly one resource that the caller can see;
    ``invalid``, ``precondition`` or ``forbidden`` for a search that cannot be made.
    """
    if not any(_is_conditional(entry) or (entry.draft and entry.draft.conditional_references) for entry in entries):
        return list(entries)
    search = _Search(links, context, service, {entry.name: entry for entry in entries if entry.name})
    resolved = [await search.with_condition(entry) for entry in entries]
    return [await search.with_references(entry) for entry in resolved]


def with_entry_index(problem: Problem, index: int) -> Problem:
    """The same problem, with the entry's index in its texts."""
    issues = tuple(Issue(issue.code, f"Bundle.entry[{index}]: {issue.text}", issue.expression, issue.severity) for issue in problem.issues)
    return Problem(problem.kind, issues[0].text, issues)


def require_distinct(entries: Iterable[BundleEntry]) -> None:
    """Require that no two entries of a transaction write the same resource, also by their criteria.  Raises Problem ``invalid``."""
    written: set[str] = set()
    for entry in entries:
        for name in entry.changed:
            if name in written:
                raise Problem("invalid", f"Two entries of the transaction write {name}.")
            written.add(name)


def _is_conditional(entry: BundleEntry) -> bool:
    return _is_conditional_create(entry) or entry.is_conditional_change


def _is_conditional_create(entry: BundleEntry) -> bool:
    return entry.request.method == "POST" and entry.draft is not None and "if-none-exist" in entry.request.headers


@dataclass(slots=True)
class _Search:
    """The searches of one transaction.  ``existing``: the match of each conditional entry that has one, both as ``Type/id``."""

    links: BundleLinks
    context: WriteContext
    service: Service
    by_name: dict[str, BundleEntry]
    existing: dict[str, str] = field(default_factory=dict)
    _conditions: dict[int, Pairs] = field(default_factory=dict)
    _matched: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    async def with_condition(self, entry: BundleEntry) -> BundleEntry:
        """The entry with its matches, and with the placeholders in its condition led to what the other entries become."""
        if not _is_conditional(entry):
            return entry
        try:
            await self._match(entry)
        except Problem as problem:
            raise with_entry_index(problem, entry.index) from None
        pairs, matched = self._conditions[entry.index], self._matched[entry.index]
        if not entry.is_conditional_change:
            headers = {**entry.request.headers, "if-none-exist": format_query(pairs)}
            return replace(entry, request=msgspec.structs.replace(entry.request, headers=headers))
        id = matched[0].partition("/")[2] if matched and entry.request.method != "DELETE" else entry.id
        return replace(entry, request=msgspec.structs.replace(entry.request, query=tuple(pairs)), matched=matched, id=id)

    async def with_references(self, entry: BundleEntry) -> BundleEntry:
        """The entry with its links and conditional references led to stored resources."""
        if entry.patch:
            return replace(entry, patch=self._led_to_existing(entry.patch))
        if entry.draft is None:
            return entry
        before = jsontext.join_members(entry.draft.parts)
        text = self._led_to_existing(before)
        found = {}
        for reference in sorted(entry.draft.conditional_references):
            try:
                found[reference] = await self._one(reference)
            except Problem as problem:
                raise with_entry_index(problem, entry.index) from None
        text = replace_references(text, found.get) if found else text
        return entry if text == before else replace(entry, draft=entry.draft.with_text(text))

    def _led_to_existing(self, text: bytes) -> bytes:
        for new, existing in self.existing.items():
            # A new id is random; only a longer id can contain it.
            text = re.sub(rb"(?<![A-Za-z0-9\-.])%s(?![A-Za-z0-9\-.])" % re.escape(new.encode()), existing.encode(), text)
        return text

    async def _match(self, entry: BundleEntry) -> None:
        """Find the existing matches of a conditional entry, after those that its condition names."""
        if entry.index in self._conditions:
            return
        if entry.index in self._open:
            raise Problem("invalid", "The conditions of entries refer to one another in a circle.")
        self._open.add(entry.index)
        type = entry.request.path[0]
        written = _criteria(entry, self.service.base)
        pairs = await self._resolved(written)
        self._conditions[entry.index] = pairs
        self._matched[entry.index] = await self._matches(entry, type, pairs)
        if entry.name and self._matched[entry.index]:
            self.existing[entry.name] = self._matched[entry.index][0]

    async def _matches(self, entry: BundleEntry, type: str, pairs: Pairs) -> tuple[str, ...]:
        request = msgspec.structs.replace(entry.request, query=tuple(pairs))
        if entry.request.method == "DELETE":
            return tuple(await conditional_write.matches_for_deletion(self.context, request, self.service))
        existing = await criteria.matching(self.context.view, type, pairs, request.now, self.service)
        if existing is not None and entry.draft is not None and entry.is_conditional_change:
            conditional_write.draft_of_match(entry.draft, existing)
        return (conditional_write.name_of(existing),) if existing is not None else ()

    async def _resolved(self, pairs: Iterable[tuple[str, str]]) -> Pairs:
        """The search parameters with each fullUrl of an entry replaced by the name of the resource that the entry becomes."""
        resolved = []
        for name, value in pairs:
            parts = [await self._placeholder(part) for part in value.split(",")]
            resolved.append((name, ",".join(parts)))
        return resolved

    async def _placeholder(self, text: str) -> str:
        name = self.links.target(text) if text else None
        if name is None:
            return text
        entry = self.by_name.get(name)
        if entry is not None and _is_conditional(entry):
            await self._match(entry)
        return self.existing.get(name, name)

    async def _one(self, reference: str) -> str:
        """The one visible resource that a conditional reference matches."""
        type = reference.partition("?")[0]
        encoded = quote(reference, safe=string.punctuation)  # JSON may hold characters that a URL would have percent-encoded
        pairs = await self._resolved(criteria.of_condition(type, encoded, self.service.base))
        return await criteria.one_match(self.context.view, type, pairs, reference, self.service)


def _criteria(entry: BundleEntry, base: str) -> Pairs:
    if entry.is_conditional_change:
        return criteria.of_url(entry.request)
    return criteria.of_condition(entry.request.path[0], entry.request.headers["if-none-exist"], base)
