"""The websockets of this server process, and which Subscriptions have their notifications on which of them.

The process that holds the websocket of a Subscription attends to it.  A record in the store names that process for a while, and is
renewed; whoever binds last has it.  The process that leads attends to what nobody holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from fhir_server.clock import SECOND
from fhir_server.errors import Problem
from fhir_server.interactions import subscription_records
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_binding import still_holds
from fhir_server.interactions.subscription_records import Stored
from fhir_server.subscriptions.socket import Socket
from fhir_server.web.websockets import POLICY

HELD: Final = 180 * SECOND  # by a process that does not renew it, which it does once a minute
OF_ONE_CALLER: Final = 8
MOST: Final = 200
_ATTEMPTS: Final = 8


class _Bound(NamedTuple):
    """A Subscription that is bound: the websocket, the digest of the access token, when that expires, and when it was bound."""

    socket: Socket
    access: str
    until: int
    since: int


class Sockets:
    """All websockets of one process.

    ``name``  tells this process from the others; ``most``: how many there may be at a time
    """

    def __init__(self, service: Service, name: str, most: int = MOST) -> None:
        self.name = name
        self._service = service
        self._most = most
        self._open: dict[Socket, None] = {}  # the oldest first
        self._bound: dict[str, _Bound] = {}
        self._security = -1

    def keys(self) -> frozenset[str]:
        """The keys of the Subscriptions that are bound here."""
        return frozenset(self._bound)

    def __len__(self) -> int:
        return len(self._open)

    async def add(self, socket: Socket) -> bool:
        """Take a new websocket.  If there are as many as may be, the oldest to which nothing is bound gives its place; else False."""
        if len(self._open) >= self._most:
            idle = next((one for one in self._open if not one.caller), None)
            if idle is None:
                return False
            self._open.pop(idle)
            await idle.close(POLICY)
        self._open[socket] = None
        return True

    async def remove(self, socket: Socket, now: int) -> None:
        """Forget a websocket that has ended, and let go what was bound to it."""
        self._open.pop(socket, None)
        for key in [key for key, bound in self._bound.items() if bound.socket is socket]:
            del self._bound[key]
            await self._let_go(key, now)

    async def bind(self, socket: Socket, found: list[Stored], access: str, caller: str, until: int, now: int) -> None:
        """Give these Subscriptions to a websocket: they are told what they have not been told, a handshake first.

        ``access``: the digest of the access token; ``until``: when it expires, in microseconds.  Raises Problem ``not_found``.
        """
        socket.caller = caller
        for stored in found:
            family = stored.subscription.grant.family
            await self._service.store.key_values.put("subscription-socket", stored.key, self.name.encode(), now + HELD, family)
            await self._ask_again(stored.key, now)
            before = self._bound.get(stored.key)
            self._bound[stored.key] = _Bound(socket, access, until, now)
            if before is not None and before.socket is not socket:
                await self._close_if_idle(before.socket)
        await subscription_records.note_change(self._service.store.key_values, self._service.new_id())
        same = [one for one in self._open if one.caller == caller]
        for one in same[: max(0, len(same) - OF_ONE_CALLER)]:
            await self._drop(one)

    async def _ask_again(self, key: str, now: int) -> None:
        """Let the next attempt be made at once, and begin with a handshake."""
        values = self._service.store.key_values
        for _ in range(_ATTEMPTS):
            stored = await subscription_records.find(values, key, now)
            if stored is None or stored.subscription.status == "off":
                raise Problem("not_found", "The Subscription has ended.")
            asked = msgspec.structs.replace(stored.subscription, asked=False, failures=0, failing_since=0, due=0)
            if await subscription_records.replace(values, stored, asked):
                return
        raise Problem("busy", "The server is busy; try again.")

    async def attends(self, key: str, now: int, *, has_socket: bool, leads: bool, renew: bool) -> bool:
        """Whether this process is the one to attend to a Subscription.  ``renew``: hold it longer if this process holds it."""
        values, name = self._service.store.key_values, self.name.encode()
        if not has_socket:
            await self.release(key)
            return leads
        if renew and key in self._bound and not await values.replace_value("subscription-socket", key, name, name, now + HELD):
            await self.release(key)  # another process has it now, or the access has ended
        holder = await values.get("subscription-socket", key, now)
        if holder != name:
            await self.release(key)
        return holder == name or (holder is None and leads)

    async def reaches(self, stored: Stored, now: int) -> bool:
        """Whether there is a websocket whose caller still has the grant of the Subscription.  One without it is closed."""
        bound = self._bound.get(stored.key)
        if bound is None or bound.socket.is_closed:
            return False
        if bound.until > now and await still_holds(self._service, bound.access, stored, now):
            return True
        await self._drop(bound.socket)
        return False

    async def tell(self, key: str, text: str, seconds: float) -> bool:
        """Whether the client has received this message in time.  To be asked after :meth:`reaches`."""
        bound = self._bound.get(key)
        return bound is not None and await bound.socket.tell(text, seconds)

    async def release(self, key: str) -> None:
        """Take a Subscription from its websocket, which is closed if it has no other."""
        bound = self._bound.pop(key, None)
        if bound is not None:
            await self._close_if_idle(bound.socket)

    async def keep(self, keys: frozenset[str], since: int) -> None:
        """Release the Subscriptions that were bound before ``since`` and are none of these: they have ended."""
        for key in [key for key, bound in self._bound.items() if key not in keys and bound.since < since]:
            await self.release(key)

    async def look(self, now: int) -> None:
        """Close the websockets whose access has ended: those that expired, and after any revocation those that it concerns."""
        for bound in [bound for bound in self._bound.values() if bound.until <= now]:
            await self._drop(bound.socket)
        if not self._bound:
            return
        async with self._service.store.snapshot() as snapshot:
            security = (await snapshot.permission_epoch(None)).security
        if security == self._security:
            return
        for key in list(self._bound):
            stored = await subscription_records.find(self._service.store.key_values, key, now)
            if stored is None:
                await self.release(key)
            else:
                await self.reaches(stored, now)
        self._security = security

    async def _drop(self, socket: Socket) -> None:
        """Close a websocket, with all that is bound to it; its end lets go of the records."""
        self._open.pop(socket, None)
        await socket.close(POLICY)

    async def _close_if_idle(self, socket: Socket) -> None:
        if not any(bound.socket is socket for bound in self._bound.values()):
            await socket.close(POLICY)

    async def _let_go(self, key: str, now: int) -> None:
        """Let the record end, unless another process has it by now."""
        name = self.name.encode()
        await self._service.store.key_values.replace_value("subscription-socket", key, name, name, now)
