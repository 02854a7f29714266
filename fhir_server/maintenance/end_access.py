"""Ends all access at once, after a break-in: of everybody, of a person, of an app or system, or of an app for a person.

Whoever has only a token, a code or a session cookie has nothing afterwards.  Passwords, second factors and keys of clients stay, and
so do accounts and registrations: an operator locks, resets or removes those.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.core import logout_queue, session_ends
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.token_grants import active_grants
from fhir_server.store import Store

ENDED: Final = {
    "access": "access tokens",
    "refresh": "refresh tokens",
    "code": "authorization codes",
    "successor": "tokens kept for a second refresh",
    "session": "sessions",
    "session-seen": "",  # the other record of a session
    "to-app": "",  # the way of a code to the app
    "half-signed-in": "sign-ins that wait for a second factor",
    "request": "authorization requests in progress",
    "pushed-request": "",  # becomes an authorization request
    "remembered-consent": "consents remembered for apps",
    "federation-state": "sign-ins at other providers in progress",
    "link-state": "links to other organizations in progress",
    "launch": "EHR launches",
    "client-invitation": "registration tokens",
    "password-code": "codes for choosing a password",
    "mailed-password-code": "mailed codes for choosing a password",
    "account-code": "codes for opening an account",
    "second-factor-offer": "second factors being set up",
    "subscription-binding": "",  # is worth nothing without its access token
}
"""Kinds of records that give access, and what they are."""

_MANAGEMENT: Final = "management tokens of registered apps"
_REMEMBERED: Final = "remembered-consent"
_OF_GRANTS: Final = ("access", "refresh", "code")
_PAUSE: Final = 2.0  # seconds after which the work is done again, for what requests stored that had begun


@dataclass(frozen=True, slots=True)
class Ending:
    """Whose access ends: of the account ``username``, of ``client_id``, of both together, or (both empty) of everybody."""

    username: str = ""
    client_id: str = ""

    def covers(self, record: dict[str, Any]) -> bool:
        """Whether a stored grant, request or launch is meant."""
        of_user = not self.username or record.get("username") == self.username
        return of_user and (not self.client_id or record.get("client_id") == self.client_id)


async def end_access(store: Store, ending: Ending, now: int) -> dict[str, int]:
    """End access; return how many of each sort ended.  Raises ValueError for an unknown account or client."""
    if ending.username and await users.find(store, ending.username) is None:
        raise ValueError(f"There is no user {ending.username!r}.")
    if ending.client_id and await clients.find(store, ending.client_id) is None:
        raise ValueError(f"There is no client {ending.client_id!r}.")
    ended: Counter[str] = Counter()
    for pause in (_PAUSE, 0.0):
        ended.update(await _end_once(store, ending, now))
        await asyncio.sleep(pause)
    return {what: count for what, count in ended.items() if what and count}


async def _end_once(store: Store, ending: Ending, now: int) -> Counter[str]:
    ended: Counter[str] = Counter()
    if not ending.username:
        ended[_MANAGEMENT] = await _end_management(store, ending)
    if not ending.username and not ending.client_id:
        families = {grant.family for grant in await active_grants(store, now)}
        families |= {grant["family"] for grant in await _remembered(store, now)}
        for kind, count in (await store.key_values.delete_kinds(ENDED)).items():
            ended[ENDED[kind]] += count
        await logout_queue.end_all_ended(store, now)
        for family in families:
            await store.key_values.delete_family(family)
        return ended
    if ending.username and not ending.client_id:
        ended.update(await _end_account(store, ending.username, now))
    for kind in _OF_GRANTS:
        for _, text in await store.key_values.list_all(kind, now):
            record = msgspec.json.decode(text)
            if ending.covers(record):
                ended[ENDED[kind]] += 1
                await store.key_values.delete_family(record["family"])
    for grant in await _remembered(store, now):
        if ending.covers(grant):
            ended[ENDED[_REMEMBERED]] += 1
            await store.key_values.delete_family(grant["family"])
    for kind in ("request", "launch"):
        for key, text in await store.key_values.list_all(kind, now):
            if ending.covers(msgspec.json.decode(text)):
                ended[ENDED[kind]] += await store.key_values.pop(kind, key, now) is not None
    return ended


async def _remembered(store: Store, now: int) -> list[dict[str, Any]]:
    """The grants that apps can have again without a page."""
    return [msgspec.json.decode(text)["grant"] for _, text in await store.key_values.list_all(_REMEMBERED, now)]


async def _end_account(store: Store, username: str, now: int) -> Counter[str]:
    """End sessions and what is in progress of an account."""
    ended: Counter[str] = Counter()
    user = await users.find(store, username)
    for kind in ("session", "half-signed-in"):
        stored = await store.key_values.list_all(kind, now)
        ended[ENDED[kind]] = sum(msgspec.json.decode(text).get("username") == username for _, text in stored)
    await session_ends.end_all(store, username)
    for kind in ("password-code", "mailed-password-code", "second-factor-offer") if user else ():
        ended[ENDED[kind]] += await store.key_values.pop(kind, digest(user.subject), now) is not None  # type: ignore[union-attr]
    return ended


async def _end_management(store: Store, ending: Ending) -> int:
    """End the tokens by which developers change the registrations of their apps."""
    count = 0
    for client in await clients.list_all(store):
        if client.registration_token_hash and ending.client_id in ("", client.client_id):
            await clients.change(store, msgspec.structs.replace(client, registration_token_hash=""), store.key_values.now())
            count += 1
    return count
