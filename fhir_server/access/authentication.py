"""Resolves an access token to permissions and caches them until the data they depend on changes.

The store counts what permissions depend on (:class:`~fhir_server.store.PermissionEpoch`): revocations and account changes,
the patient's grants and facts, and the visibility classes.  A request whose permissions are out of date resolves them again.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

from fhir_server.access.permissions import Permissions
from fhir_server.access.resolver import PermissionResolver
from fhir_server.errors import Problem
from fhir_server.smart.tokens import tokens
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Snapshot, Store

_CACHE_SIZE = 4096


class PermissionsChangedError(Exception):
    """The token may have been revoked since the request began: authenticate again before writing."""


class Authenticator:
    """Authenticates the bearers of access tokens.  One per server process."""

    def __init__(self, store: Store, resolver: PermissionResolver) -> None:
        self._store = store
        self._resolver = resolver
        self._cache: OrderedDict[bytes | Principal, Permissions] = OrderedDict()  # by a token's digest, or by who opens a page

    async def authenticate(
        self, snapshot: Snapshot, authorization: str | None, now: int, expected: tuple[str, str] | None = None, proven: str = ""
    ) -> Permissions:
        """The permissions of who sends this ``Authorization`` header (RFC 6750, RFC 9449) at ``now`` (microseconds).

        ``expected``: (type, id) of the row that the request probably reads.  It is read ahead with cached permissions; if those are no
        longer current, it is not used.
        ``proven``: the thumbprint of the key that signed a proof of this request.
        Raises Problem ``unauthenticated`` if the token is missing, unknown, expired or revoked, or is bound to another key.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if not token or (scheme.lower() != "bearer" and not (proven and scheme.lower() == "dpop")):
            raise Problem("unauthenticated", "An access token is needed.")
        key = sha256(token.encode()).digest()
        cached = self._cache.get(key)
        cached = cached if cached is not None and cached.principal.jkt == proven else None
        if cached is not None and expected is not None:
            snapshot.expect_read(*expected, cached.visibility(expected[0], now, "r"))
        if cached is not None and await _is_current(cached, snapshot, now):
            return cached
        principal = await tokens.resolve_principal(self._store, token, now)
        if principal is not None and principal.jkt != proven:
            raise Problem("unauthenticated", "A token that is bound to a key needs its proof (DPoP); any other is sent as Bearer.")
        if principal is None:
            self._cache.pop(key, None)
            raise Problem("unauthenticated", "The access token is not valid.")
        if principal.administers:
            raise Problem("forbidden", "This access token is for the administration of accounts, not for FHIR.")
        return await self._resolve(snapshot, principal, now, key)

    async def permissions_of_page(self, snapshot: Snapshot, principal: Principal, now: int) -> Permissions:
        """The permissions of the person for whom a page asks; kept like those of a token.  The snapshot is not that of a transaction."""
        cached = self._cache.get(principal)
        if cached is not None and await _is_current(cached, snapshot, now):
            return cached
        return await self._resolve(snapshot, principal, now, principal)

    async def _resolve(self, snapshot: Snapshot, principal: Principal, now: int, key: bytes | Principal) -> Permissions:
        permissions = self._cache[key] = await self._resolver.resolve(snapshot, principal, now, is_committed=True)
        self._cache.move_to_end(key)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return permissions

    async def permissions_of(self, snapshot: Snapshot, principal: Principal, now: int) -> Permissions:
        """The permissions of a caller for whom the server acts later, at ``now`` (:mod:`fhir_server.smart.tokens.lasting`)."""
        return await self._resolver.resolve(snapshot, principal, now)

    async def revalidate(self, snapshot: Snapshot, permissions: Permissions, now: int) -> Permissions:
        """The permissions as of this later snapshot.

        Raises PermissionsChangedError if the token itself may have been revoked since.
        """
        current = await snapshot.permission_epoch(permissions.patient_context)
        if current == permissions.epoch:
            return permissions
        if current.security != permissions.epoch.security:
            raise PermissionsChangedError
        return await self._resolver.resolve(snapshot, permissions.principal, now)

    async def refresh(self, snapshot: Snapshot, permissions: Permissions, now: int) -> Permissions:
        """These permissions if they are still current in this snapshot, otherwise those of the same principal resolved again."""
        if await _is_current(permissions, snapshot, now):
            return permissions
        return await self._resolver.resolve(snapshot, permissions.principal, now)


async def _is_current(permissions: Permissions, snapshot: Snapshot, now: int) -> bool:
    return now < permissions.valid_until and await snapshot.permission_epoch(permissions.patient_context) == permissions.epoch
