"""Loads resources on the machine that holds the store, with the rules of every write: validation, labels, history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fhir_server.consent.labeling import Labeler
from fhir_server.errors import Problem
from fhir_server.maintenance.input_files import Item, Unit
from fhir_server.resources.references import ID
from fhir_server.store import Store, Transaction
from fhir_server.writing.draft import Draft, parse_draft
from fhir_server.writing.meta import changes_nothing
from fhir_server.writing.writer import ResourceWriter, rank

_PAUSES: Final = (1, 2, 4, 8, 15, 30, 30, 30)  # seconds between attempts while the store is busy, which is two minutes in all


@dataclass(slots=True)
class LoadReport:
    """The result of a load: resources stored, resources that were there already, and one line of JSON for each refused one."""

    stored: int = 0
    present: int = 0
    rejects: list[bytes] = field(default_factory=list)


class Loader:
    """Stores units of resources.

    ``clock`` returns the instant at which a unit is stored, in microseconds since 1970 UTC; ``sleep`` waits for some seconds.
    """

    def __init__(
        self,
        store: Store,
        labeler: Labeler,
        base: str,
        clock: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._labeler = labeler
        self._base = base
        self._clock = clock
        self._sleep = sleep

    async def load(self, unit: Unit, report: LoadReport) -> None:
        """Store one unit and add the result to ``report``.

        A refused resource does not affect the others, unless the unit is atomic: then all are refused.  Raises Problem
        ``busy`` if the store takes no writes for minutes.
        """
        drafts: list[tuple[Item, Draft]] = []
        refused: list[tuple[Item, Problem]] = []
        for item in unit.items:
            try:
                drafts.append((item, self._parse_item(item)))
            except Problem as problem:
                refused.append((item, problem))
        if refused and unit.atomic:
            reason = Problem("unprocessable", f"Refused with its transaction because of {refused[0][0].position}.")
            refused += [(item, reason) for item, _ in drafts]
            drafts = []
        report.rejects += [_reject(unit, item, problem) for item, problem in refused]
        stored = await self._write_with_retries(drafts) if drafts else 0
        report.stored += stored
        report.present += len(drafts) - stored

    def _parse_item(self, item: Item) -> Draft:
        if not ID.fullmatch(item.id):
            raise Problem("invalid", "The resource has no valid id.")
        return parse_draft(item.text, base=self._base)

    async def _write_with_retries(self, drafts: list[tuple[Item, Draft]]) -> int:
        """Write, and retry while the store is busy.  A second attempt skips what the first one stored after all."""
        for pause in _PAUSES:
            try:
                return await self._store.write(lambda tx: self._write(tx, drafts))
            except Problem as problem:
                if problem.kind != "busy":
                    raise
            await self._sleep(pause)
        return await self._store.write(lambda tx: self._write(tx, drafts))

    async def _write(self, tx: Transaction, drafts: list[tuple[Item, Draft]]) -> int:
        resource_writer = ResourceWriter(tx, self._labeler, self._base, self._clock())
        stored = 0
        for item, draft in sorted(drafts, key=lambda pair: rank(pair[1].type)):
            current = await tx.read_unfiltered(draft.type, item.id)
            if current is not None and current.interaction != "delete" and changes_nothing(draft, current.body):
                continue
            await resource_writer.write(draft, item.id, takes_labels=True, previous=current)
            if current is None:
                await resource_writer.relabel_referrers(f"{draft.type}/{item.id}")
            stored += 1
        await resource_writer.relabel_pending()
        return stored


def _reject(unit: Unit, item: Item, problem: Problem) -> bytes:
    """Return one line of the rejects file: where the resource is in its file, why it was refused, and its text."""
    outcome = json.loads(problem.outcome())
    line = {"source": unit.source.name, "place": item.position, "outcome": outcome, "resource": item.text.decode("utf-8", "replace")}
    return json.dumps(line, ensure_ascii=False).encode()
