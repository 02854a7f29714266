"""From an access token to a plan, remembered only while nothing it rests on has moved.

What a plan rests on is counted by the store (:class:`~fhir_server.store.Stamp`): revocations and account changes, this
patient's grants and facts, and the visibility classes there are.  A request whose plan has gone stale plans anew.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

from fhir_server.access.permissions import Granter, Plan
from fhir_server.errors import Problem
from fhir_server.smart.tokens import tokens
from fhir_server.store import Snapshot, Store

_REMEMBERED = 4096


class Stale(Exception):
    """The token must be looked at again before this write."""


class Door:
    """Lets callers in.  One per server process."""

    def __init__(self, store: Store, granter: Granter) -> None:
        self._store = store
        self._granter = granter
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()

    async def plan(self, snapshot: Snapshot, authorization: str | None, now: int) -> Plan:
        """The plan of the bearer of this ``Authorization`` header.

        Raises Problem ``unauthenticated`` for no token, or one that is unknown, expired or revoked.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Problem("unauthenticated", "An access token is needed.")
        key = sha256(token.encode()).digest()
        known = self._plans.get(key)
        if known is not None and await _stands(known, snapshot, now):
            return known
        principal = await tokens.principal(self._store, token, now)
        if principal is None:
            self._plans.pop(key, None)
            raise Problem("unauthenticated", "The access token is not valid.")
        made = self._plans[key] = await self._granter.plan(snapshot, principal, now)
        self._plans.move_to_end(key)
        if len(self._plans) > _REMEMBERED:
            self._plans.popitem(last=False)
        return made

    async def again(self, snapshot: Snapshot, plan: Plan, now: int) -> Plan:
        """The plan as of this later snapshot.  Raises Stale if the token itself may have been revoked since."""
        current = await snapshot.stamp(plan.subject)
        if current == plan.basis:
            return plan
        if current.security != plan.basis.security:
            raise Stale
        return await self._granter.plan(snapshot, plan.principal, now)

    async def fresh(self, snapshot: Snapshot, plan: Plan, now: int) -> Plan:
        """The plan of the same principal from what this snapshot holds: this one, if nothing that it rests on has moved."""
        return plan if await _stands(plan, snapshot, now) else await self._granter.plan(snapshot, plan.principal, now)


async def _stands(plan: Plan, snapshot: Snapshot, now: int) -> bool:
    return now < plan.until and await snapshot.stamp(plan.subject) == plan.basis
