"""One attempt to tell the endpoint of a Subscription what it has not been told yet: at least once, and in order.

The access on which the Subscription rests is resolved again for each notification, and the events are found in a View of that moment;
after a failure nothing is kept of what was to be sent.  What the resource says of a failure depends on the endpoint alone.

An attempt may follow a change that the subscriber does not see.  So what an attempt leaves behind when it finds no event, the end of a
Subscription and how far its history has been looked at, is stored by attempts at fixed times only (``periodic``).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.clock import SECOND, Clock
from fhir_server.errors import Problem
from fhir_server.interactions import subscription_records
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_events import Found, Progress, next_events
from fhir_server.interactions.subscription_notices import notification
from fhir_server.interactions.subscription_plan import WEBSOCKET, Plan
from fhir_server.interactions.subscription_records import KEPT_EVENTS, SentEvent, Stored, Subscription
from fhir_server.search.custom_parameters import in_use
from fhir_server.smart.core.encryption import InvalidToken
from fhir_server.smart.tokens import lasting
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.subscriptions.sockets import Sockets
from fhir_server.web import public_fetch
from fhir_server.web.public_fetch import Network, UnfetchableError

PAUSES: Final = (5 * SECOND, 30 * SECOND, 120 * SECOND, 600 * SECOND, 3600 * SECOND)  # after each failure, before the next attempt
ERROR_AFTER: Final = 3  # failures in a row: the status is error then
GIVE_UP_AFTER: Final = 24 * 3600 * SECOND  # of failures: the status is off then
NOT_ACCEPTED: Final = "The endpoint does not accept notifications."
GIVEN_UP: Final = "The endpoint did not accept notifications for a day."
TOO_COSTLY: Final = "The search of the Subscription costs more than a request may."
OVER: Final = "The end of the Subscription has been reached."
NO_ACCESS: Final = "The access with which the Subscription was made has ended."
NOT_SUPPORTED: Final = "The server does not support this Subscription any more."
_ROUNDS: Final = 10  # notifications in one attempt
_LONGEST: Final = 5 * SECOND  # of an attempt, after which the next notification waits for the next one
_KEEP_PROGRESS: Final = 300 * SECOND  # of changes that were no events: the server that delivers next looks at them again
_FHIR: Final = "application/fhir+json"
_log = logging.getLogger("fhir_server")

Record = Callable[[Request, AuditContext, int], Awaitable[None]]
"""Adds a line to the audit log; see :meth:`fhir_server.audit.AuditLog.record_request`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a Subscription: ``again``: there is more to do at once; ``changed``: its status is another one."""

    again: bool = False
    changed: bool = False


@dataclass(slots=True)
class Delivery:
    """Makes attempts.

    ``network``  how endpoints are reached; ``record``: adds lines to the audit log
    ``clock``    tells how long an attempt has taken, and the instant of its further notifications
    ``limits``   what finding the events of one notification may spend
    ``sockets``  the websockets that this process holds

    ``_ahead`` remembers, by key, how far this process has looked beyond what a record says, without finding events.
    """

    service: Service
    network: Callable[[], Network]
    record: Record
    clock: Clock
    limits: BudgetLimits
    sockets: Sockets
    _ahead: dict[str, tuple[Progress, Progress]] = field(default_factory=dict)

    async def attempt(self, key: str, now: int, horizon: int, *, periodic: bool, leads: bool = True) -> Attempt:
        """Tell the endpoint of what happened before ``horizon``, a whole millisecond; ``now`` in microseconds.

        ``periodic``: whether the attempt is made at this moment whatever has changed.  ``leads``: whether this process attends to
        whatever no process holds a websocket of.
        """
        stored = await subscription_records.find(self.service.store.key_values, key, now)
        if stored is None or stored.subscription.status == "off" or stored.subscription.due > now:
            return Attempt()
        status = stored.subscription.status
        after = await self._attempt(stored, now, horizon, periodic=periodic, leads=leads)
        return Attempt(after is not None and after.again, after is None or after.stored.subscription.status != status)

    def forget(self, keys: set[str]) -> None:
        """Forget all Subscriptions but these."""
        self._ahead = {key: progress for key, progress in self._ahead.items() if key in keys}

    async def _attempt(self, stored: Stored, now: int, horizon: int, *, periodic: bool, leads: bool) -> _After | None:
        """None if somebody else changed the record meanwhile: the next attempt reads it again."""
        subscription, service = stored.subscription, self.service
        try:
            plan = subscription.plan(service.base, service.endpoints, service.opened)
        except InvalidToken:
            _log.warning("The headers of the Subscription %s are encrypted with another secret key.", stored.id)
            return await self._failed(stored, now)
        except Problem:
            return await self._end(stored, NOT_SUPPORTED, now)
        if not await self.sockets.attends(stored.key, now, has_socket=plan.channel == WEBSOCKET, leads=leads, renew=periodic):
            return _After(stored)
        if plan.end is not None and plan.end <= now:
            return await self._end(stored, OVER, now)
        principal = await lasting.resolve_lasting(service.store, subscription.grant, now)
        if principal is None:
            return await self._end(stored, NO_ACCESS, now) if periodic else _After(stored, again=True)
        if not subscription.asked:
            accepted = await self._tell(stored, plan, "handshake", now, [])
            return await self._told(stored, now, again=True) if accepted else await self._failed(stored, now)
        return await self._tell_all(stored, plan, principal, now, horizon, periodic=periodic)

    async def _tell_all(self, stored: Stored, plan: Plan, principal: Principal, now: int, horizon: int, *, periodic: bool) -> _After | None:
        """Some notifications, each of its own moment; the next attempt goes on where this one stops."""
        began, subscriber, after = now, principal, _After(stored)
        for _ in range(_ROUNDS):
            told = await self._tell_events(after.stored, plan, subscriber, now, horizon, periodic=periodic)
            if told is None or not told.again:
                return told and await self._tell_heartbeat(told, plan, now)
            after, now = told, max(now, self.clock())
            resolved = await lasting.resolve_lasting(self.service.store, stored.subscription.grant, now)
            if resolved is None or now - began >= _LONGEST or (plan.end is not None and plan.end <= now):
                break
            subscriber = resolved
        return after

    async def _tell_events(
        self, stored: Stored, plan: Plan, principal: Principal, now: int, horizon: int, *, periodic: bool
    ) -> _After | None:
        subscription, audit = stored.subscription, AuditContext()
        begun = Progress(subscription.since, subscription.after)
        known, ahead = self._ahead.get(stored.key, (begun, begun))
        try:
            found = await self._find(plan, principal, ahead if known == begun else begun, now, horizon, audit)
        except Problem as problem:
            if problem.kind != "too_costly":
                raise
            return await self._failed(stored, now, TOO_COSTLY)
        if not found.events:
            self._ahead[stored.key] = begun, found.progress
            if found.more or (periodic and found.progress.since - begun.since > _KEEP_PROGRESS):
                reached = msgspec.structs.replace(subscription, since=found.progress.since, after=found.progress.after)
                return await self._replaced(stored, reached, again=found.more)
            return _After(stored)
        if not await self._reaches(stored, plan, now):
            return await self._failed(stored, now)
        await self.record(Request("GET", ("Subscription", stored.id, "$events"), (), {}, b"", now), audit, 200)
        if not await self._tell(stored, plan, "event-notification", now, found.events):
            return await self._failed(stored, now)
        number = subscription.number + len(found.events)
        sent = [
            SentEvent(subscription.number + place, event.type, event.id, event.version, event.updated)
            for place, event in enumerate(found.events, 1)
        ]
        reached = msgspec.structs.replace(
            subscription.with_status("active", now), since=found.progress.since, after=found.progress.after, number=number, failures=0,
            failing_since=0, due=0, sent=now, recent=(*subscription.recent, *sent)[-KEPT_EVENTS:],
        )  # fmt: skip
        return await self._replaced(stored, reached, again=found.more)

    async def _find(self, plan: Plan, principal: Principal, progress: Progress, now: int, horizon: int, audit: AuditContext) -> Found:
        """The next events.  A caller whose scopes do not cover them any more sees none."""

        async def find() -> Found:
            async with self.service.store.snapshot() as snapshot:
                audit.permissions = await self.service.authenticator.permissions_of(snapshot, principal, now)
                view = View(snapshot, audit.permissions, now, audit.shown)
                with in_use(audit.permissions.parameters):
                    return await next_events(view, plan, self.service.base, progress, horizon)

        try:
            return await budget.metered(find(), Budget(self.limits))
        except Problem as problem:
            if problem.kind not in ("forbidden", "invalid"):
                raise
            return Found([], Progress(max(horizon, progress.since), None), False)

    async def _tell_heartbeat(self, after: _After, plan: Plan, now: int) -> _After | None:
        stored = after.stored
        subscription = stored.subscription
        due = plan.heartbeat and subscription.status in ("active", "error") and now - subscription.sent >= plan.heartbeat
        if not due or subscription.due > now:
            return after
        accepted = await self._tell(stored, plan, "heartbeat", now, [])
        return await self._told(stored, now) if accepted else await self._failed(stored, now)

    async def _tell(self, stored: Stored, plan: Plan, kind: str, now: int, events: list[VisibleVersion]) -> bool:
        """Whether the endpoint accepted a notification."""
        first = stored.subscription.number + 1
        method, url, body = "POST", plan.endpoint, b""
        if plan.topic:
            body = notification(stored.id, stored.subscription, plan, self.service.base, kind, now, [*enumerate(events, first)])
        if plan.channel == WEBSOCKET:  # http://hl7.org/fhir/R4/subscription.html#websockets
            text = body.decode() if plan.topic else f"{'ping' if events else 'bound'} {stored.id}"
            return await self._reaches(stored, plan, now) and await self.sockets.tell(stored.key, text, plan.timeout)
        if not plan.topic and events and plan.content == "full-resource":  # http://hl7.org/fhir/R4/subscription.html#rest-hook
            (event,) = events
            method, url, body = "PUT", f"{plan.endpoint.rstrip('/')}/{event.type}/{event.id}", event.body
        headers = {**plan.headers, **({"Content-Type": _FHIR} if body else {})}
        try:
            hosts, network = self.service.endpoints, self.network()
            return 200 <= await public_fetch.send(network, method, url, hosts, headers, body, plan.timeout) < 300
        except UnfetchableError:
            return False

    async def _reaches(self, stored: Stored, plan: Plan, now: int) -> bool:
        """Whether there is a way to the subscriber: for a websocket, one whose caller still has the access it was bound with."""
        return plan.channel != WEBSOCKET or await self.sockets.reaches(stored, now)

    async def _told(self, stored: Stored, now: int, *, again: bool = False) -> _After | None:
        told = stored.subscription.with_status("active", now)
        return await self._replaced(
            stored, msgspec.structs.replace(told, asked=True, failures=0, failing_since=0, due=0, sent=now), again=again
        )

    async def _failed(self, stored: Stored, now: int, why: str = "") -> _After | None:
        subscription = stored.subscription
        failures, since = subscription.failures + 1, subscription.failing_since or now
        if now - since >= GIVE_UP_AFTER:
            return await self._end(stored, why or GIVEN_UP, now)
        if failures >= ERROR_AFTER:
            subscription = subscription.with_status("error", now, why or NOT_ACCEPTED)
        due = now + PAUSES[min(failures, len(PAUSES)) - 1]
        return await self._replaced(stored, msgspec.structs.replace(subscription, failures=failures, failing_since=since, due=due))

    async def _end(self, stored: Stored, why: str, now: int) -> _After | None:
        _log.warning("The Subscription %s of the client %s is off: %s", stored.id, stored.subscription.grant.client_id, why)
        return await self._replaced(stored, stored.subscription.with_status("off", now, why))

    async def _replaced(self, stored: Stored, changed: Subscription, *, again: bool = False) -> _After | None:
        replaced = await subscription_records.replace(self.service.store.key_values, stored, changed)
        return None if replaced is None else _After(replaced, again)


@dataclass(frozen=True, slots=True)
class _After:
    """The record after a step, and whether there are more events."""

    stored: Stored
    again: bool = False
