"""The events of a Subscription: what changed in the histories that its subscriber sees, at the moment of the look.

An event is an entry of the history of its type in the subscriber's View (:meth:`~fhir_server.access.view.View.changes`), so a hidden
write is none and takes no number.  A row that is released later is seen with the time of its version and is then no event either.
Criteria are a search of the View: they hold for the resource as it is at the moment of the look.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from fhir_server.access.view import View
from fhir_server.access.visible_changes import EntryKey, HistoryPeriod
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.interactions.subscription_plan import Plan
from fhir_server.interactions.subscription_records import SentEvent
from fhir_server.search import query
from fhir_server.search.filters import AllOf, IdIs

MILLISECOND: Final = 1000


class Progress(NamedTuple):
    """What has been looked at: all changes before the instant ``since``, and those up to the entry ``after`` besides."""

    since: int
    after: EntryKey | None


class Found(NamedTuple):
    """Events, oldest first, how far they reach, and whether there may be more before the horizon."""

    events: list[VisibleVersion]
    progress: Progress
    more: bool


async def next_events(view: View, plan: Plan, base: str, progress: Progress, horizon: int) -> Found:
    """The next events before ``horizon``, a whole millisecond up to which all writes are done.

    Raises Problem ``forbidden`` if no scope covers reading and searching the type, ``invalid`` for criteria that cannot be asked.
    """
    period = HistoryPeriod(progress.since, None, ascending=True)
    page = await view.changes((plan.type,), plan.max_count, period, progress.after)
    entries = list(takewhile(lambda version: version.updated < horizon, page.versions))
    events = await matching(view, plan, base, [version for version in entries if version.interaction in plan.interactions])
    given = {(event.type, event.id) for event in events}
    view.shown[:] = [row for row in view.shown if row[1:] in given]
    if page.next is None and len(entries) == len(page.versions):
        return Found(events, Progress(max(horizon, progress.since), None), False)
    last = entries[-1] if entries else None
    after = EntryKey(last.updated, last.type, last.id, last.version) if last else progress.after
    return Found(events, Progress(progress.since, after), len(entries) == len(page.versions))


async def matching(view: View, plan: Plan, base: str, versions: Sequence[VisibleVersion]) -> list[VisibleVersion]:
    """Those of the versions whose resource meets the plan's criteria now.  Raises Problem ``forbidden`` or ``invalid``."""
    if not plan.pairs or not versions:
        return list(versions)
    where = AllOf((IdIs(frozenset(version.id for version in versions)), query.condition(plan.type, plan.pairs, view.now, base)))
    met = {version.id for version in (await view.find(plan.type, where, limit=len(versions))).versions}
    return [version for version in versions if version.id in met]


async def require_answerable(view: View, plan: Plan, base: str) -> None:
    """Require that the subscriber may ask what the plan says.  Depends on no stored row of the type.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    view.permissions.require(plan.type, "r")
    if plan.pairs:
        nobody = IdIs(frozenset({"-"}))
        await view.find(plan.type, AllOf((nobody, query.condition(plan.type, plan.pairs, view.now, base))), limit=1)


async def visible_again(view: View, events: Sequence[SentEvent]) -> list[VisibleVersion | None]:
    """The versions of events that were sent before, as the subscriber sees them now; None for what is not visible any more."""
    found: list[VisibleVersion | None] = []
    for event in events:
        page = await view.changes(
            (event.type,), 1, HistoryPeriod(event.updated // MILLISECOND * MILLISECOND, None, ascending=True),
            EntryKey(event.updated, event.type, event.id, event.version - 1),
        )  # fmt: skip
        same = [version for version in page.versions if (version.id, version.version) == (event.id, event.version)]
        found.append(same[0] if same else None)
    return found
