"""Devices on which users have signed in, in whatever way, identified by a random cookie.  Only its digest is stored.

An attacker who keeps guessing a password can use up the account's attempts.  A device on which the owner has signed in
before has its own attempts, so the owner can still sign in (OWASP, device cookies).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.core.context import DAY, digest, new_secret
from fhir_server.store import Store

LIFE: Final = 180 * DAY
_KIND: Final = "device"
_MAX_USERS: Final = 8  # of one device; the latest


async def is_known(store: Store, cookie: str, username: str, now: int) -> bool:
    """Whether this user (canonical name) has signed in on this device within :data:`LIFE`."""
    return digest(username) in await _users(store, cookie, now)


async def remember(store: Store, cookie: str, username: str, now: int) -> str:
    """Store that this user has signed in on this device.  Returns the device cookie: a new one for an unknown device."""
    users = await _users(store, cookie, now)
    device = cookie if users else new_secret()
    latest = (*(user for user in users if user != digest(username)), digest(username))[-_MAX_USERS:]
    await store.key_values.put(_KIND, digest(device), msgspec.json.encode(latest), now + LIFE)
    return device


async def _users(store: Store, cookie: str, now: int) -> tuple[str, ...]:
    text = await store.key_values.get(_KIND, digest(cookie), now) if cookie else None
    return () if text is None else msgspec.json.decode(text, type=tuple[str, ...])
