"""Loads resources on the machine that holds the store, with the rules of every write: validation, labels, history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from fhir_server import jsontext
from fhir_server.access.pending_labels import PendingLabels
from fhir_server.consent.labeling import Labeler
from fhir_server.errors import Problem
from fhir_server.maintenance.input_files import Item, Unit
from fhir_server.packages.validator import ProfileValidator
from fhir_server.resources.references import ID
from fhir_server.search import code_sets, query
from fhir_server.search.filters import AllOf, Filter
from fhir_server.search.steps import with_visibilities
from fhir_server.search.visibility import Visibility
from fhir_server.store import Store, Transaction
from fhir_server.writing.draft import Draft, parse_draft
from fhir_server.writing.meta import changes_nothing
from fhir_server.writing.references import replace_references
from fhir_server.writing.relabeling_steps import relabel_all_pending
from fhir_server.writing.writer import ResourceWriter, rank

_PAUSES: Final = (1, 2, 4, 8, 15, 30, 30, 30)  # seconds between attempts while the store is busy, which is two minutes in all

_NOT_LOADED: Final = "Subscription"


@dataclass(slots=True)
class LoadReport:
    """The result of a load: resources stored, resources that were there already, and one line of JSON for each refused one.

    ``unresolved``: the number of conditional references that matched nothing; a file that is loaded later may change that.
    """

    stored: int = 0
    present: int = 0
    rejects: list[bytes] = field(default_factory=list)
    unresolved: int = 0


_Refused = tuple[Item, Problem]


class _Written(NamedTuple):
    """The number of resources that changed, and those that were refused."""

    stored: int
    refused: list[_Refused]


class _UnresolvedError(Exception):
    """Ends the transaction of an atomic unit."""

    def __init__(self, refused: _Refused) -> None:
        super().__init__()
        self.refused = refused


class Loader:
    """Stores units of resources.

    ``clock`` returns the instant at which a unit is stored, in microseconds since 1970 UTC; ``sleep`` waits for some seconds.
    ``profiles``: what resources must meet, too.
    """

    def __init__(
        self,
        store: Store,
        labeler: Labeler,
        base: str,
        clock: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        profiles: ProfileValidator | None = None,
    ) -> None:
        self._store = store
        self._labeler = labeler
        self._base = base
        self._clock = clock
        self._sleep = sleep
        self._pending_labels = PendingLabels()
        self._profiles = profiles

    async def load(self, unit: Unit, report: LoadReport) -> None:
        """Store one unit and add the result to ``report``.

        A refused resource does not affect the others, unless the unit is atomic: then all are refused.  Raises Problem
        ``busy`` if the store takes no writes for minutes.
        """
        drafts: list[tuple[Item, Draft]] = []
        refused: list[tuple[Item, Problem]] = []
        for item in unit.items:
            try:
                drafts.append((item, await self._parse_item(item)))
            except Problem as problem:
                refused.append((item, problem))
        stored = 0
        if drafts and not (refused and unit.atomic):
            try:
                stored, unresolved = await self._write_with_retries(drafts, unit.atomic)
                await relabel_all_pending(self._store, self._labeler, self._base)
            except _UnresolvedError as error:
                unresolved = [error.refused]
            report.unresolved += len(unresolved)
            refused += unresolved
        rejected = {id(item) for item, _ in refused}
        left = [item for item, _ in drafts if id(item) not in rejected]
        if refused and unit.atomic:
            reason = Problem("unprocessable", f"Refused with its transaction because of {refused[0][0].position}.")
            refused += [(item, reason) for item in left]
            left = []
        report.rejects += [_reject(unit, item, problem) for item, problem in refused]
        report.stored += stored
        report.present += len(left) - stored

    async def _parse_item(self, item: Item) -> Draft:
        if not ID.fullmatch(item.id):
            raise Problem("invalid", "The resource has no valid id.")
        if item.problem is not None:
            raise item.problem
        draft = parse_draft(item.text, base=self._base, conditional=True)
        if draft.type == _NOT_LOADED:
            raise Problem("unprocessable", "A Subscription is made by its subscriber: a file does not say whose access it rests on.")
        if self._profiles is not None and self._profiles.must_check(draft.type, draft.value):
            await self._profiles.require(draft.type, draft.value)
        return draft

    async def _write_with_retries(self, drafts: list[tuple[Item, Draft]], atomic: bool) -> _Written:
        """Write, and retry while the store is busy.  A second attempt skips what the first one stored after all."""
        for pause in _PAUSES:
            try:
                return await self._store.write(lambda tx: self._write(tx, drafts, atomic))
            except Problem as problem:
                if problem.kind != "busy":
                    raise
            await self._sleep(pause)
        return await self._store.write(lambda tx: self._write(tx, drafts, atomic))

    async def _write(self, tx: Transaction, drafts: list[tuple[Item, Draft]], atomic: bool) -> _Written:
        """Write these resources.  Raises _UnresolvedError, which ends the transaction, if one is refused and ``atomic``."""
        refused: list[_Refused] = []
        await tx.permission_epoch(None)  # of two transactions, one that leaves labels for later and this one, one sees the other
        pending = await self._pending_labels.read(tx)
        resource_writer = ResourceWriter(tx, self._labeler, self._base, self._clock(), pending=pending)
        stored = 0
        for item, draft in sorted(drafts, key=lambda pair: rank(pair[1].type)):
            try:
                draft = await self._resolved(tx, draft)
            except Problem as problem:
                if atomic:
                    raise _UnresolvedError((item, problem)) from None
                refused.append((item, problem))
                continue
            current = await tx.read_unfiltered(draft.type, item.id)
            if current is not None and current.interaction != "delete" and changes_nothing(draft, current.body):
                continue
            await resource_writer.write(draft, item.id, takes_labels=True, previous=current)
            if current is None:
                await resource_writer.relabel_referrers(f"{draft.type}/{item.id}")
            stored += 1
        await resource_writer.relabel_pending()
        return _Written(stored, refused)

    async def _resolved(self, tx: Transaction, draft: Draft) -> Draft:
        """The draft with each reference ``Type?criteria`` led to the one resource of the store that matches.

        Raises Problem ``unprocessable`` for none and for several, and ``invalid`` for criteria that cannot be searched by.
        """
        found = {reference: await self._one_match(tx, reference) for reference in sorted(draft.conditional_references)}
        if not found:
            return draft
        return draft.with_text(replace_references(jsontext.join_members(draft.parts), found.get))

    async def _one_match(self, tx: Transaction, reference: str) -> str:
        type, _, criteria = reference.partition("?")
        where = query.condition(type, parse_qsl(criteria, keep_blank_values=True), self._clock(), self._base)
        code_sets.require_none(where)
        visibility = Visibility.unrestricted(len(await tx.classes()), self._clock())

        async def visibility_of(type: str, where: Filter) -> Visibility:
            return visibility

        rows = (await tx.find(type, await with_visibilities(where, visibility_of), visibility, limit=2)).rows
        if where == AllOf(()) or len(rows) != 1:
            several = "several resources" if rows else "no resource"
            raise Problem("unprocessable", f"The reference {reference[:80]!r} matches {several}.")
        return f"{type}/{rows[0].id}"


def _reject(unit: Unit, item: Item, problem: Problem) -> bytes:
    """Return one line of the rejects file: where the resource is in its file, why it was refused, and its text."""
    outcome = json.loads(problem.outcome())
    line = {"source": unit.source.name, "place": item.position, "outcome": outcome, "resource": item.text.decode("utf-8", "replace")}
    return json.dumps(line, ensure_ascii=False).encode()
