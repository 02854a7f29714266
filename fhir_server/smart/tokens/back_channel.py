"""Tells the clients of a session that its user has signed out (OpenID Connect Back-Channel Logout 1.0).

A client registers the URL, so it is called as its keys are fetched: public addresses only, no redirects, little time.  The calls
follow the answer to the person, who never waits for them.  A call is repeated if the client cannot be reached, and then given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

from fastapi import BackgroundTasks, Response
from joserfc import jwt

from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients, subjects
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.authlib import run_in_thread
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, new_secret
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.tokens import session_clients
from fhir_server.smart.tokens.id_tokens import ALGORITHM
from fhir_server.web.public_fetch import Hosts, UnfetchableError, post_form

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LIFE: Final = 2 * MINUTE
PAUSES: Final = (0.0, 1.0, 5.0)  # seconds before each attempt
_AT_A_TIME: Final = 4
_log = logging.getLogger(__name__)


def telling(smart: SmartContext, response: Response, user: User, session_keys: Iterable[str]) -> Response:
    """The response, after which the clients of these sessions, which have ended, are told so."""
    tasks = BackgroundTasks()
    for key in session_keys:
        tasks.add_task(tell_clients, smart, user, key)
    response.background = tasks
    return response


async def tell_clients(smart: SmartContext, user: User, session_key: str) -> None:
    """Tell all clients that this session has signed its user in to, each once."""
    limit = asyncio.Semaphore(_AT_A_TIME)

    async def tell(client: Client) -> None:
        async with limit:
            await _tell(smart, user, session_key, client)

    found = [await clients.find(smart.store, client_id) for client_id in await session_clients.take(smart, session_key)]
    await asyncio.gather(*(tell(client) for client in found if client and client.options.backchannel_logout_uri))


async def logout_token(smart: SmartContext, user: User, session_key: str, client: Client) -> str:
    """A logout token (2.4): an id_token cannot be taken for it, nor it for one."""
    now = smart.now()
    claims: dict[str, Any] = {
        "iss": smart.origin,
        "aud": client.client_id,
        "iat": now // SECOND,
        "exp": (now + LIFE) // SECOND,
        "jti": new_secret(),
        "sub": await subjects.subject(smart.store, client, user),
        "sid": session_clients.session_id(session_key, client.client_id),
        "events": {EVENT: {}},
    }
    kid, key = await signing_keys.current_key(smart, ALGORITHM)
    header = {"alg": ALGORITHM, "kid": kid, "typ": "logout+jwt"}
    return await run_in_thread(lambda: jwt.encode(header, claims, key, algorithms=[ALGORITHM]))


async def _tell(smart: SmartContext, user: User, session_key: str, client: Client) -> None:
    for pause in PAUSES:
        await asyncio.sleep(pause)
        fields = {"logout_token": await logout_token(smart, user, session_key, client)}
        try:
            status = await post_form(smart.network, client.options.backchannel_logout_uri, Hosts.of(smart.is_demo), fields)
        except UnfetchableError:
            continue
        if status < 500:
            break
    else:
        status = 0
    was_told = 200 <= status < 300
    if not was_told:
        _log.warning("The client %s could not be told of a sign-out (%s).", client.client_id, status or "not reached")
    await smart.record(SecurityEvent("sign-out", was_told, user.username, client.client_id, detail={"told": "client"}))
