"""From an access token to a plan, remembered only while nothing it rests on has moved.

What a plan rests on is counted by the store (:class:`~fhir_server.store.PermissionEpoch`): revocations and account changes, this
patient's grants and facts, and the visibility classes there are.  A request whose plan has gone stale plans anew.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

from fhir_server.access.permissions import PermissionResolver, Permissions
from fhir_server.errors import Problem
from fhir_server.smart.tokens import tokens
from fhir_server.store import Snapshot, Store

_REMEMBERED = 4096


class PermissionsChangedError(Exception):
    """The token must be looked at again before this write."""


class Authenticator:
    """Lets callers in.  One per server process."""

    def __init__(self, store: Store, resolver: PermissionResolver) -> None:
        self._store = store
        self._resolver = resolver
        self._plans: OrderedDict[bytes, Permissions] = OrderedDict()

    async def authenticate(self, snapshot: Snapshot, authorization: str | None, now: int) -> Permissions:
        """The plan of the bearer of this ``Authorization`` header.

        Raises Problem ``unauthenticated`` for no token, or one that is unknown, expired or revoked.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Problem("unauthenticated", "An access token is needed.")
        key = sha256(token.encode()).digest()
        known = self._plans.get(key)
        if known is not None and await _is_current(known, snapshot, now):
            return known
        principal = await tokens.resolve_principal(self._store, token, now)
        if principal is None:
            self._plans.pop(key, None)
            raise Problem("unauthenticated", "The access token is not valid.")
        made = self._plans[key] = await self._resolver.resolve(snapshot, principal, now)
        self._plans.move_to_end(key)
        if len(self._plans) > _REMEMBERED:
            self._plans.popitem(last=False)
        return made

    async def revalidate(self, snapshot: Snapshot, permissions: Permissions, now: int) -> Permissions:
        """The plan as of this later snapshot.  Raises Stale if the token itself may have been revoked since."""
        current = await snapshot.permission_epoch(permissions.patient_context)
        if current == permissions.epoch:
            return permissions
        if current.security != permissions.epoch.security:
            raise PermissionsChangedError
        return await self._resolver.resolve(snapshot, permissions.principal, now)

    async def refresh(self, snapshot: Snapshot, permissions: Permissions, now: int) -> Permissions:
        """The plan of the same principal from what this snapshot holds: this one, if nothing that it rests on has moved."""
        return (
            permissions
            if await _is_current(permissions, snapshot, now)
            else await self._resolver.resolve(snapshot, permissions.principal, now)
        )


async def _is_current(permissions: Permissions, snapshot: Snapshot, now: int) -> bool:
    return now < permissions.until and await snapshot.permission_epoch(permissions.patient_context) == permissions.epoch
