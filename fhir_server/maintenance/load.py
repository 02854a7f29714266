"""Loading resources on the machine that holds the store, with the rules every write keeps: validation, labels, history."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from fhir_server.consent.labeling import Labeler
from fhir_server.errors import Problem
from fhir_server.maintenance.input_files import Item, Unit
from fhir_server.resources.references import ID
from fhir_server.store import Row, Store, Transaction
from fhir_server.writing import writer
from fhir_server.writing.writer import Draft, ResourceWriter


@dataclass(slots=True)
class LoadReport:
    """What came of a load: how many resources were stored, already there, and refused (with the reasons)."""

    stored: int = 0
    present: int = 0
    rejects: list[bytes] = field(default_factory=list)


class Loader:
    """Stores units of resources.  ``clock`` gives the instant each unit is stored at."""

    def __init__(self, store: Store, labeler: Labeler, base: str, clock: Callable[[], int]) -> None:
        self._store = store
        self._labeler = labeler
        self._base = base
        self._clock = clock

    async def load(self, unit: Unit, tally: LoadReport) -> None:
        """Store one unit; what is refused is noted with the reason and loses nothing else, unless the unit is atomic."""
        drafts: list[tuple[Item, Draft]] = []
        refused: list[tuple[Item, Problem]] = []
        for item in unit.items:
            try:
                drafts.append((item, self._draft(item)))
            except Problem as problem:
                refused.append((item, problem))
        if refused and unit.atomic:
            reason = Problem("unprocessable", f"Refused with its transaction, because of {refused[0][0].place}.")
            refused += [(item, reason) for item, _ in drafts]
            drafts = []
        tally.rejects += [_reject(unit, item, problem) for item, problem in refused]
        stored = await self._store.write(lambda tx: self._write(tx, drafts)) if drafts else 0
        tally.stored += stored
        tally.present += len(drafts) - stored

    def _draft(self, item: Item) -> Draft:
        if not ID.fullmatch(item.id):
            raise Problem("invalid", "The resource has no valid id.")
        return writer.parse_draft(item.text, base=self._base)

    async def _write(self, tx: Transaction, drafts: list[tuple[Item, Draft]]) -> int:
        writing = ResourceWriter(tx, self._labeler, self._base, self._clock())
        stored = 0
        for item, draft in sorted(drafts, key=lambda pair: writer.rank(pair[1].type)):
            current = await tx.read_unfiltered(draft.type, item.id)
            if current is not None and _same(current, draft):
                continue
            await writing.write(draft, item.id, trusted=True, previous=current)
            if current is None:
                await writing.relabel_referrers(f"{draft.type}/{item.id}")
            stored += 1
        await writing.relabel_pending()
        return stored


def _same(current: Row, draft: Draft) -> bool:
    """Whether the stored version says what the draft says."""
    return current.interaction != "delete" and writer.content(current.body) == writer.content_of(draft)


def _reject(unit: Unit, item: Item, problem: Problem) -> bytes:
    """One line of the rejects file: where it stood, why it was refused, and the resource as it was."""
    outcome = json.loads(problem.outcome())
    line = {"source": unit.source.name, "place": item.place, "outcome": outcome, "resource": item.text.decode("utf-8", "replace")}
    return json.dumps(line, ensure_ascii=False).encode()
