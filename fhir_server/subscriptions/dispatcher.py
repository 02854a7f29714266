"""Decides when which Subscription is attended to.

Of several servers on one store one delivers, the holder of a lease; another takes over when it has lapsed.  A Subscription with a
websocket is attended to by the server that holds that, whoever has the lease (:mod:`.sockets`).  A change of the store costs
an attempt for the Subscriptions to its type, and no change costs one look at each type.  An endpoint that does not answer holds up its
own Subscription and no other.

An attempt may follow a change that the subscriber does not see.  So a Subscription ends at times that do not depend on changes: when
its own end has come, and at an attempt that is made once a minute, at a second of its own, when its access is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from zlib import crc32

from fhir_server.clock import MAX_INSTANT, SECOND, Clock
from fhir_server.errors import Problem
from fhir_server.interactions import subscription_records
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_records import Stored
from fhir_server.search.visibility import Visibility
from fhir_server.store.changes import ChangeRange
from fhir_server.subscriptions.delivery import Attempt, Delivery
from fhir_server.subscriptions.sockets import Sockets

SETTLING: Final = 5 * SECOND  # after which a version is looked for, so that there is time to publish a write that takes long
LEASE: Final = 30 * SECOND
_LOOK_SECONDS: Final = 1.0
_LONG_WRITE: Final = 2 * SECOND
_PUBLISHED_LIFE: Final = 60 * SECOND
_RELIST: Final = 60 * SECOND
_AT_A_TIME: Final = 64
_OF_ONE_OWNER: Final = 4
_PERIOD: Final = 60 * SECOND
_MILLISECOND: Final = 1000
_log = logging.getLogger("fhir_server")


class _Known:
    """What this process knows of a Subscription: its type, when it is due and ends, and when it was looked at."""

    def __init__(self, stored: Stored, type: str, heartbeat: int, end: int, last_periodic: int) -> None:
        self.stored = stored
        self.type = type
        self.heartbeat = heartbeat
        self.end = end
        self.last_periodic = last_periodic
        self._second = crc32(stored.key.encode()) % _PERIOD
        self.looked = 0
        self.retry = False

    def is_periodic(self, now: int) -> bool:
        """Whether the next periodic attempt has come: once in each of its minutes, by the clock alone."""
        return (now - self._second) // _PERIOD > (self.last_periodic - self._second) // _PERIOD


class Dispatcher:
    """Delivers for all Subscriptions of the store.  One per server process.

    ``name``    tells this process from the others
    ``clock``   says when something is due
    ``report``  is told how many Subscriptions have which status
    """

    def __init__(self, service: Service, delivery: Delivery, name: str, clock: Clock, report: Callable[[Mapping[str, int]], None]) -> None:
        self._service = service
        self._clock = clock
        self._delivery = delivery
        self._name = name
        self._report = report
        self._known: dict[str, _Known] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._change: bytes | None = None
        self._listed = 0
        self._changed: dict[str, int] = {}  # by type: the horizon of the last look that found a change
        self._horizon = 0
        self._has_published = False

    @property
    def sockets(self) -> Sockets:
        """The websockets of this process."""
        return self._delivery.sockets

    async def keep_delivering(self) -> None:
        """Deliver as long as the process runs."""
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    await self.look()
                except Problem as problem:
                    if problem.kind not in ("read_only", "busy"):
                        _log.exception("Subscriptions could not be looked at; the server will try again.")
                except Exception:
                    _log.exception("Subscriptions could not be looked at; the server will try again.")
        finally:
            for task in self._running.values():
                task.cancel()

    async def settle(self) -> None:
        """Wait for all attempts that have begun."""
        while self._running:
            await asyncio.gather(*self._running.values())

    async def look(self) -> None:
        """Begin the attempts that are due.  Raises Problem ``read_only`` while nothing can be stored."""
        now = self._clock()
        await self._delivery.sockets.look(now)
        await self._list(now)
        if not self._known:
            return
        horizon = await self._stored_until(now) // _MILLISECOND * _MILLISECOND
        # Its commit follows that of every transaction that had begun before the horizon, where one commits after the other (SQLite).
        leads, held = await self._holds_lease(now), self._delivery.sockets.keys()
        if not leads:
            for key, known in self._known.items():
                known.retry |= key not in held  # another server delivers: what it does not know, this one looks at when it takes over
            if not held:
                return
        await self._look_for_changes(horizon)
        owners = Counter(key.partition("/")[0] for key in self._running)
        for key, known in list(self._known.items()):
            owner = key.partition("/")[0]
            if len(self._running) >= _AT_A_TIME:
                break
            if not (leads or key in held) or key in self._running or owners[owner] >= _OF_ONE_OWNER or not self._is_due(known, now):
                continue
            self._known[key] = self._known.pop(key)  # the others come before it the next time
            owners[owner] += 1
            self._running[key] = asyncio.create_task(self._attempt(key, known, now, horizon, leads=leads))

    def _is_due(self, known: _Known, now: int) -> bool:
        subscription = known.stored.subscription
        if subscription.status == "off" or subscription.due > now:
            return False
        if known.retry or subscription.status == "requested" or subscription.failures:
            return True
        if known.end <= now or known.is_periodic(now):
            return True
        beats = bool(known.heartbeat) and now - subscription.sent >= known.heartbeat
        return beats or self._changed.get(known.type, 0) > known.looked

    async def _attempt(self, key: str, known: _Known, now: int, horizon: int, *, leads: bool) -> None:
        attempt, periodic = Attempt(again=True), known.is_periodic(now)
        try:
            attempt = await self._delivery.attempt(key, now, horizon, periodic=periodic, leads=leads)
            known.last_periodic = now if periodic else known.last_periodic
            known.looked = horizon
            await self._refresh(key, known, now)
        except Problem as problem:
            if problem.kind not in ("read_only", "busy", "too_costly"):
                _log.exception("A Subscription could not be attended to; the server will try again.")
        except Exception:
            _log.exception("A Subscription could not be attended to; the server will try again.")
        finally:
            known.retry = attempt.again
            if attempt.changed:
                self._change = None
            del self._running[key]

    async def _refresh(self, key: str, known: _Known, now: int) -> None:
        stored = await subscription_records.find(self._service.store.key_values, key, now)
        if stored is None:
            self._known.pop(key, None)
        else:
            known.stored = stored

    async def _list(self, now: int) -> None:
        """List the Subscriptions again if one was made or changed, and from time to time."""
        values = self._service.store.key_values
        change = await subscription_records.last_change(values, now)
        if change == self._change and now - self._listed < _RELIST:
            return
        self._change, self._listed = change, now
        listed = await subscription_records.list_all(values, now) if change is not None else []
        self._report(Counter(stored.subscription.status for stored in listed))
        known: dict[str, _Known] = {}
        for stored in listed:
            before = self._known.get(stored.key)
            if before is not None and before.stored.record == stored.record:
                known[stored.key] = before
            elif stored.subscription.status != "off":
                known[stored.key] = self._read(stored, before.last_periodic if before is not None else 0)
        self._known = known
        self._delivery.forget(set(known))
        await self._delivery.sockets.keep(frozenset(known), now)

    def _read(self, stored: Stored, last_periodic: int) -> _Known:
        type, heartbeat, end = "", 0, MAX_INSTANT
        with suppress(Problem):  # what is not supported any more is ended by its attempt
            plan = stored.subscription.plan(self._service.base, self._service.endpoints)
            type, heartbeat, end = plan.type, plan.heartbeat, plan.end or MAX_INSTANT
        known = _Known(stored, type, heartbeat, end, last_periodic)
        known.retry = True
        return known

    async def _stored_until(self, now: int) -> int:
        """The instant before which no version will be stored any more.  Writes that take long are published, for other servers."""
        values, own = self._service.store.key_values, self._service.writes.stored_until(now)
        if now - own > _LONG_WRITE:
            await values.put("writes-in-progress", self._name, str(own).encode(), now + _PUBLISHED_LIFE)
        elif self._has_published:
            await values.pop("writes-in-progress", self._name, now)
        self._has_published = now - own > _LONG_WRITE
        others = [int(text) for _, text in await values.list_all("writes-in-progress", now)]
        return min([now - SETTLING, own, *others])

    async def _holds_lease(self, now: int) -> bool:
        values, name = self._service.store.key_values, self._name.encode()
        if await values.put_if_absent("subscription-lease", "", name, now + LEASE):
            return True
        return await values.replace_value("subscription-lease", "", name, name, now + LEASE)

    async def _look_for_changes(self, horizon: int) -> None:
        """Note the types of which a version was stored since the last look, whoever sees it."""
        async with self._service.store.snapshot() as snapshot:
            everything = Visibility.unrestricted(len(await snapshot.classes()), horizon)
            for type in {known.type for known in self._known.values() if known.type}:
                since = ChangeRange(self._horizon, horizon, ascending=True)
                if horizon > self._horizon and await snapshot.changes_unfiltered({type: everything}, 1, since):
                    self._changed[type] = horizon
        self._horizon = max(self._horizon, horizon)
