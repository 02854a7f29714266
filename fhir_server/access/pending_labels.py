"""Rows whose labels are still those of before a change of a row from which they inherit.

A change may concern more rows than one transaction can label again.  Then the transaction of the change stores a mark with the
names of all rows that inherit from the changed one, directly or through others, and the rest is done later, in small steps
(:mod:`fhir_server.writing.pending_relabeling`).  Until then each of these rows is hidden from every caller who may see less of
it with its new labels: the conditions of their permissions leave it out, so it is in no page, total, history or include.

A mark never changes.  It ends when all its rows are labeled, in a transaction that advances the permission epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from fhir_server.consent import decision
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import Policy
from fhir_server.consent.visibility_classes import CATEGORIES, MC, VisibilityClass
from fhir_server.resources import catalog
from fhir_server.search.filters import AllOf, AnyOf, Filter, IdIs, Not, OfPatient
from fhir_server.store import Snapshot

MARKS: Final = "pending-labels"
"""The kind of the records that hold marks, by the id of the mark."""
ROWS: Final = "pending-rows"
"""The kind of the records that hold the ids of a mark's rows by type, in portions; their keys begin with the id of the mark."""
MAX_IDS: Final = 20_000  # of one type in the condition of a search; beyond, all rows of the type are hidden for their patients
_CACHED: Final = 64


class LabelChange(msgspec.Struct, frozen=True):
    """How what a row lends has changed: the labels before and after, and whether nothing but labels has."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    only_labels: bool = False

    def hides_from(self, policy: Policy, actor: Actor, withheld: frozenset[str]) -> frozenset[str]:
        """The data classes of which there may be rows that this actor sees with the labels before and not after.

        ``withheld``: labels that the actor does not see whatever the policy says.  A label may bring others with it, because some
        codes are sensitive only beside another label.
        """
        if "*" in actor.clearance and not decision.released_only(actor):
            return frozenset()

        def admits(data: str, labels: frozenset[str]) -> bool:
            return not labels & withheld and decision.permits(policy, actor, VisibilityClass(data, labels))

        before, after = frozenset(self.before), frozenset(self.after)
        if self.only_labels and after <= before:
            return frozenset()
        joined = before | after
        return frozenset(
            data
            for data in policy.classes
            if admits(data, before) and not (self.only_labels and admits(data, joined) and admits(data, joined | CATEGORIES | {MC}))
        )


class Mark(msgspec.Struct, frozen=True):
    """A stored mark.

    ``source``        the changed row, ``Type/id``
    ``rows``          how many rows are pending, as far as they were counted
    ``patients``      by type: patients all of whose rows of this type are hidden, because there are too many to name
    ``everything``    there were too many rows to find them all: everything that can have labels is hidden
    ``keeps_labels``  the rows keep their former labels besides the new ones
    """

    id: str
    source: str
    change: LabelChange
    rows: int
    patients: dict[str, tuple[str, ...]] = {}
    everything: bool = False
    keeps_labels: bool = False


@dataclass(frozen=True)
class PendingRows:
    """A mark and the ids of its rows, by type."""

    mark: Mark
    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def holds(self, name: str) -> bool:
        """Whether the row ``Type/id`` is one of them."""
        type, _, id = name.partition("/")
        return id in self.ids.get(type, ())


@dataclass(frozen=True)
class HiddenRows:
    """The pending rows of several marks, as a condition for one caller; with each mark, the data classes that it hides."""

    marks: tuple[tuple[PendingRows, frozenset[str]], ...] = ()

    def without(self, type: str, data_classes: frozenset[str], where: Filter) -> Filter:
        """The condition ``where`` on rows of ``type`` and these data classes, without the pending ones.

        Everybody sees the directory, whatever its labels.
        """
        marks = [pending for pending, hidden in self.marks if not hidden.isdisjoint(data_classes)]
        if not marks or catalog()[type].data_class == "directory":
            return where
        if any(pending.mark.everything for pending in marks):
            return AnyOf(())
        patients = frozenset[str]().union(*(pending.mark.patients.get(type, ()) for pending in marks))
        named = [pending.ids[type] for pending in marks if type in pending.ids and type not in pending.mark.patients]
        ids = frozenset[str]().union(*named) if len(named) != 1 else named[0]
        parts = (*((Not(IdIs(ids)),) if ids else ()), *((Not(OfPatient(patients)),) if patients else ()))
        return AllOf((where, *parts)) if parts else where


NOTHING_HIDDEN: Final = HiddenRows()


class PendingLabels:
    """Reads the marks of a snapshot.  One per process; what it has read of a mark stays valid."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, PendingRows] = OrderedDict()

    async def read(self, snapshot: Snapshot) -> tuple[PendingRows, ...]:
        """All marks with their rows."""
        found = await snapshot.records_unfiltered(MARKS)
        return tuple([await self._rows_of(snapshot, msgspec.json.decode(value, type=Mark)) for _, value in found])

    async def _rows_of(self, snapshot: Snapshot, mark: Mark) -> PendingRows:
        if mark.id not in self._cache:
            ids: dict[str, set[str]] = {}
            for _, value in await snapshot.records_unfiltered(ROWS, f"{mark.id}/"):
                for type, portion in msgspec.msgpack.decode(value, type=dict[str, list[str]]).items():
                    ids.setdefault(type, set()).update(portion)
            self._cache[mark.id] = PendingRows(mark, {type: frozenset(listed) for type, listed in ids.items()})
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return self._cache[mark.id]


def hidden_from(marks: Iterable[PendingRows], policy: Policy, actor: Actor | None, withheld: frozenset[str]) -> HiddenRows:
    """Those of the marks whose rows are hidden from this actor for now."""
    if actor is None:
        return NOTHING_HIDDEN
    found = [(pending, pending.mark.change.hides_from(policy, actor, withheld)) for pending in marks]
    return HiddenRows(tuple((pending, hidden) for pending, hidden in found if hidden))
