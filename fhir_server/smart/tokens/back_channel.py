"""Tells the clients of a session that it has ended (OpenID Connect Back-Channel Logout 1.0).

Each server process looks every few seconds for what is due in the queue (:mod:`~fhir_server.smart.core.logout_queue`), so it does not
matter who ended the session, and in which process.  Of several processes one sends a notice.  If a client cannot be reached, the notice
is sent again after growing pauses, and then given up.  A process that dies while it sends may let another one send the notice again.

A client registers the URL, so it is called as its keys are fetched: public addresses only, no redirects, little time.  Few calls to one
client are made at a time, and the rest waits behind the notices of others: a client that does not answer delays nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from joserfc import jwt

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import logout_queue, signing_keys
from fhir_server.smart.core.authlib import run_in_thread
from fhir_server.smart.core.context import HOUR, MINUTE, SECOND, SmartContext, new_secret
from fhir_server.smart.core.logout_queue import Notice, SignedIn
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.tokens.id_tokens import ALGORITHM
from fhir_server.web.public_fetch import Hosts, UnfetchableError, post_form

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LIFE: Final = 2 * MINUTE
PAUSES: Final = (5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR)  # after each attempt, before the next
PER_CLIENT: Final = 4  # calls at a time
_LOOK_SECONDS: Final = 2
_BATCH: Final = 200
_AT_A_TIME: Final = 16
_log = logging.getLogger(__name__)


async def keep_telling(smart: SmartContext) -> None:
    """Tell the clients of sessions that end, as long as the process runs."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            await tell_due(smart)
        except Exception:
            _log.exception("Apps could not be told of ended sessions; the server will try again.")


async def tell_due(smart: SmartContext) -> None:
    """Find the sessions that have lapsed, and send the notices that are due."""
    while await logout_queue.end_lapsed(smart.store, smart.now(), _BATCH) == _BATCH:
        pass
    limit, calls = asyncio.Semaphore(_AT_A_TIME), list[Any]()
    for notice, is_turn in _turns(await logout_queue.due_notices(smart.store, smart.now(), _BATCH)):
        if is_turn:
            calls.append(_tell(smart, notice, limit))
        else:
            await logout_queue.postpone(smart.store, notice, SECOND, smart.now(), attempts=notice.attempts)
    await asyncio.gather(*calls)


async def logout_token(smart: SmartContext, signed_in: SignedIn) -> str:
    """A logout token (2.4): an id_token cannot be taken for it, nor it for one."""
    now = smart.now()
    claims: dict[str, Any] = {
        "iss": smart.origin,
        "aud": signed_in.client_id,
        "iat": now // SECOND,
        "exp": (now + LIFE) // SECOND,
        "jti": new_secret(),
        "sub": signed_in.sub,
        "sid": signed_in.sid,
        "events": {EVENT: {}},
    }
    kid, key = await signing_keys.current_key(smart, ALGORITHM)
    header = {"alg": ALGORITHM, "kid": kid, "typ": "logout+jwt"}
    return await run_in_thread(lambda: jwt.encode(header, claims, key, algorithms=[ALGORITHM]))


def _turns(notices: Sequence[Notice]) -> list[tuple[Notice, bool]]:
    """The notices, and whether each is among the first :data:`PER_CLIENT` of its client."""
    seen: Counter[str] = Counter()
    turns = []
    for notice in notices:
        seen[notice.signed_in.client_id] += 1
        turns.append((notice, seen[notice.signed_in.client_id] <= PER_CLIENT))
    return turns


async def _tell(smart: SmartContext, notice: Notice, limit: asyncio.Semaphore) -> None:
    """Send a notice.  Its next place in the queue is taken first, so that nobody else sends it meanwhile."""
    client = await clients.find(smart.store, notice.signed_in.client_id)
    if client is None or not client.options.backchannel_logout_uri:
        await logout_queue.remove(smart.store, notice)
        return
    pause = PAUSES[min(notice.attempts, len(PAUSES) - 1)]
    claimed = await logout_queue.postpone(smart.store, notice, pause, smart.now(), attempts=notice.attempts + 1)
    if claimed is None:
        return
    async with limit:
        status = await _send(smart, claimed.signed_in, client)
    if not status and claimed.attempts <= len(PAUSES):
        return
    if await logout_queue.remove(smart.store, claimed):
        await _record(smart, claimed.signed_in, status)


async def _send(smart: SmartContext, signed_in: SignedIn, client: Client) -> int:
    """The status of the client's answer; 0 if it could not be reached or is out of order, so that the call is worth repeating."""
    fields = {"logout_token": await logout_token(smart, signed_in)}
    try:
        status = await post_form(smart.network, client.options.backchannel_logout_uri, Hosts.of(smart.is_demo), fields)
    except UnfetchableError:
        return 0
    return status if status < 500 else 0


async def _record(smart: SmartContext, signed_in: SignedIn, status: int) -> None:
    was_told = 200 <= status < 300
    if not was_told:
        _log.warning("The client %s could not be told of a sign-out (%s).", signed_in.client_id, status or "not reached")
    event = SecurityEvent("sign-out", was_told, signed_in.username, signed_in.client_id, detail={"told": "client"})
    await smart.record(event)
