"""What a transaction finds by search before it writes: the matches of conditional creates and of conditional references.

http://hl7.org/fhir/R4/http.html#trules.  Both searches see the store as it was before the transaction, through the caller's View:
a hidden resource counts as absent.  An entry of the same transaction is named by its fullUrl; it is not found by search.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import write
from fhir_server.interactions.messages import Request, format_query
from fhir_server.interactions.service import Service
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.writing.draft import Draft
from fhir_server.writing.references import replace_references


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One parsed entry.

    ``index``  its index in the Bundle
    ``draft``  the resource of a create or update
    ``id``     the logical id that this resource gets
    """

    index: int
    full_url: str
    request: Request
    draft: Draft | None = None
    id: str = ""

    @property
    def name(self) -> str:
        """``Type/id`` of the row that this resource becomes."""
        return f"{self.draft.type}/{self.id}" if self.draft else ""


async def resolve_by_search(entries: Sequence[BundleEntry], links: BundleLinks, view: View, service: Service) -> list[BundleEntry]:
    """The entries, with links to a conditional create led to its existing match, and conditional references led to theirs.

    Raises Problem ``unprocessable`` if a conditional reference does not match exactly one resource that the caller can see;
    ``invalid``, ``precondition`` or ``forbidden`` for a search that cannot be made.
    """
    if not any(entry.draft and (_is_conditional(entry) or entry.draft.conditional_references) for entry in entries):
        return list(entries)
    search = _Search(links, view, service, {entry.name: entry for entry in entries if entry.draft})
    resolved = [await search.with_condition(entry) for entry in entries]
    return [await search.with_references(entry) for entry in resolved]


def with_entry_index(problem: Problem, index: int) -> Problem:
    """The same problem, with the entry's index in its texts."""
    issues = tuple(Issue(issue.code, f"Bundle.entry[{index}]: {issue.text}", issue.expression, issue.severity) for issue in problem.issues)
    return Problem(problem.kind, issues[0].text, issues)


def _is_conditional(entry: BundleEntry) -> bool:
    return entry.request.method == "POST" and entry.draft is not None and "if-none-exist" in entry.request.headers


@dataclass(slots=True)
class _Search:
    """The searches of one transaction.  ``existing``: the match of each conditional create that has one, both as ``Type/id``."""

    links: BundleLinks
    view: View
    service: Service
    by_name: dict[str, BundleEntry]
    existing: dict[str, str] = field(default_factory=dict)
    _conditions: dict[str, str] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    async def with_condition(self, entry: BundleEntry) -> BundleEntry:
        """The entry with the placeholders in its ifNoneExist led to what the other entries become."""
        if not _is_conditional(entry):
            return entry
        try:
            await self._match(entry)
        except Problem as problem:
            raise with_entry_index(problem, entry.index) from None
        headers = {**entry.request.headers, "if-none-exist": self._conditions[entry.name]}
        return replace(entry, request=msgspec.structs.replace(entry.request, headers=headers))

    async def with_references(self, entry: BundleEntry) -> BundleEntry:
        """The entry with its links and conditional references led to stored resources."""
        if entry.draft is None:
            return entry
        text = before = jsontext.join_members(entry.draft.parts)
        for new, existing in self.existing.items():
            # A new id is random; only a longer id can contain it.
            text = re.sub(rb"(?<![A-Za-z0-9\-.])%s(?![A-Za-z0-9\-.])" % re.escape(new.encode()), existing.encode(), text)
        found = {}
        for reference in sorted(entry.draft.conditional_references):
            try:
                found[reference] = await self._one(reference)
            except Problem as problem:
                raise with_entry_index(problem, entry.index) from None
        text = replace_references(text, found.get) if found else text
        return entry if text == before else replace(entry, draft=entry.draft.with_text(text))

    async def _match(self, entry: BundleEntry) -> None:
        """Find the existing match of a conditional create, after those that its condition names."""
        assert entry.draft is not None
        if entry.name in self._conditions:
            return
        if entry.name in self._open:
            raise Problem("invalid", "The conditions in ifNoneExist refer to one another in a circle.")
        self._open.add(entry.name)
        type = entry.draft.type
        pairs = await self._resolved(write.criteria_of(type, entry.request.headers["if-none-exist"], self.service.base))
        existing = await write.matching(self.view, type, pairs, entry.request.now, self.service)
        self._conditions[entry.name] = format_query(pairs)
        if existing is not None:
            self.existing[entry.name] = f"{existing.type}/{existing.id}"

    async def _resolved(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
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
        pairs = await self._resolved(write.criteria_of(type, encoded, self.service.base))
        return await write.one_match(self.view, type, pairs, reference, self.service)
