"""The websocket of Subscriptions as an ASGI application: it opens, a client binds Subscriptions to it, and notifications follow.

A client sends ``bind id``, if it opened the websocket with its access token (http://hl7.org/fhir/R4/subscription.html#websockets), or
``bind-with-token token``, with a binding token (https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/channels.html#websockets).  All
else, and all that it may not bind, closes the websocket with the same status code and no word of why.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from fhir_server import budget
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.clock import Clock
from fhir_server.errors import Problem
from fhir_server.interactions import subscription_binding
from fhir_server.interactions.messages import JSON, AuditContext, Request, header_fields
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_binding import SOCKET_PATH, Binding
from fhir_server.request_ids import request_id
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import digest
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.subscriptions.origins import may_open
from fhir_server.subscriptions.socket import Send, Socket
from fhir_server.subscriptions.sockets import Sockets
from fhir_server.web.websockets import CONNECTION, POLICY

BIND_SECONDS: Final = 10.0
MESSAGES: Final = 60  # of a websocket in a minute
_MESSAGE: Final = re.compile(r"bind ([A-Za-z0-9.-]{1,64})|bind-with-token:? ([A-Za-z0-9_-]{43})")
_FULL: Final = "The server holds as many websockets as it may. Try again later."
_UPGRADE: Final = "This URL is for websockets: open it with the header Upgrade."

Record = Callable[[Request, AuditContext, int], Awaitable[None]]
Scope = Any
Receive = Callable[[], Awaitable[Any]]


class SocketApp:
    """Opens websockets.

    ``record``  adds lines to the audit log; ``clock``: tells when something is bound
    ``limits``  what one message of a client may spend
    ``origin``  the server's own, from which its pages and some platforms' apps come
    ``bind_seconds``  from the opening until something is bound
    """

    def __init__(self, service: Service, sockets: Sockets, record: Record, clock: Clock, limits: BudgetLimits, origin: str) -> None:
        self._service, self._sockets, self._record, self._clock = service, sockets, record, clock
        self._limits, self._origin = limits, origin
        self.bind_seconds = BIND_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _refuse(send, "", 426, Problem("method", _UPGRADE).outcome(), (b"upgrade", b"websocket"), (b"connection", b"upgrade"))
            return
        await receive()  # websocket.connect
        headers = header_fields(scope["headers"])
        request = Request("GET", (SOCKET_PATH[1:],), (), headers, b"", self._clock(), _address(scope), request_id.get())
        socket = Socket(send, scope["extensions"][CONNECTION])
        try:
            await self._require_access(request)
            if not await self._sockets.add(socket):
                raise Problem("busy", _FULL)
        except Problem as problem:
            retry = ((b"retry-after", b"%d" % problem.retry_after),) if problem.status == 503 else ()
            challenge = ((b"www-authenticate", b'Bearer realm="fhir"'),) if problem.status == 401 else ()
            await _refuse(send, "websocket.", problem.status, problem.outcome(), *retry, *challenge)
            return
        try:
            await send({"type": "websocket.accept"})
            await self._serve(socket, request, receive)
        finally:
            with suppress(Problem):  # while nothing can be written, its records end by themselves
                await self._sockets.remove(socket, self._clock())

    async def _require_access(self, request: Request) -> None:
        """Refuse an access token that is not valid.  A browser sends none.  Raises Problem ``unauthenticated`` or ``forbidden``."""
        if "authorization" not in request.headers:
            return
        audit = AuditContext()
        try:
            await self._service.authenticate(request, audit)
        except Problem as problem:
            await self._record(_line(request, request.now), audit, problem.status)
            raise

    async def _serve(self, socket: Socket, opened: Request, receive: Receive) -> None:
        """Take messages until the websocket ends."""
        loop, minute, messages = asyncio.get_running_loop(), 0.0, 0
        try:
            async with asyncio.timeout(self.bind_seconds) as unbound:
                while (message := await receive())["type"] == "websocket.receive":
                    if loop.time() - minute >= 60:
                        minute, messages = loop.time(), 0
                    messages += 1
                    if messages > MESSAGES:
                        raise Problem("too_many", "Too many messages.")
                    await budget.metered(self._bind(socket, opened, message.get("text") or ""), Budget(self._limits))
                    unbound.reschedule(None)
        except (Problem, TimeoutError):
            await socket.close(POLICY)

    async def _bind(self, socket: Socket, opened: Request, text: str) -> None:
        """Do what a message asks, and record it.  Raises Problem if nothing was bound."""
        now, audit = self._clock(), AuditContext()
        try:
            found = _MESSAGE.fullmatch(text)
            if found is None:
                raise Problem("invalid", "The message is neither bind nor bind-with-token.")
            await self._service.require_writable()
            binding = await self._binding(opened, found[1], found[2], now)
            principal, bound = await subscription_binding.resolve(self._service, binding, now, audit)
            await self._require_origin(opened, principal)
            caller = principal.username or principal.client_id
            for stored in bound:
                await self._record(_line(opened, now, stored.id), audit, 200)
            await self._sockets.bind(socket, bound, binding.access, caller, principal.expires, now)
        except Problem as problem:
            audit.shown.clear()
            await self._record(_line(opened, now), audit, problem.status)
            raise

    async def _binding(self, opened: Request, id: str | None, token: str | None, now: int) -> Binding:
        """What is to be bound, and by whom.  Raises Problem ``unauthenticated``."""
        if id is not None and "authorization" in opened.headers:
            await self._service.authenticate(opened_again(opened, now), AuditContext())
            return Binding(digest(opened.headers["authorization"].partition(" ")[2]), (id,))
        redeemed = await subscription_binding.redeem(self._service.store, token, now) if token is not None else None
        if redeemed is None:
            raise Problem("unauthenticated", "The binding token is not valid.")
        return redeemed

    async def _require_origin(self, opened: Request, principal: Principal) -> None:
        """Require that a page that opened the websocket is one of the client's.  Raises Problem ``forbidden``."""
        client = await clients.find(self._service.store, principal.client_id)
        if client is None or not may_open(opened.headers.get("origin"), client, self._origin):
            raise Problem("forbidden", "The websocket was opened by a page of another origin.")


def opened_again(opened: Request, now: int) -> Request:
    """The opening request as of a later instant: its token may have ended since."""
    return Request(opened.method, opened.path, (), opened.headers, b"", now, opened.address, opened.id)


def _line(opened: Request, now: int, id: str = "") -> Request:
    """What the audit log says of a message."""
    path = ("Subscription", id, "$bind") if id else ("Subscription", "$bind")
    return Request("GET", path, (), {}, b"", now, opened.address, opened.id)


def _address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


async def _refuse(send: Send, prefix: str, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Answer the opening request with an OperationOutcome."""
    own = [(b"content-type", JSON), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store"), *headers]
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": own})
    await send({"type": f"{prefix}http.response.body", "body": body})
