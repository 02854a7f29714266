"""Devices on which people have signed in with their passwords, by a random cookie of which only the digest is kept.

Somebody who goes on guessing a password can keep an account's slots for guesses taken for as long as she likes.  A device
that its owner has signed in on before has slots of its own, so its owner gets in all the same (OWASP, device cookies).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.core.context import DAY, digest, new_secret
from fhir_server.store import Store

LIFE: Final = 180 * DAY
_KIND: Final = "device"
_MOST: Final = 8  # people at one device, the latest


async def is_known(store: Store, cookie: str, username: str, now: int) -> bool:
    """Whether this person (by the canonical name) has signed in on this device lately."""
    return digest(username) in await _people(store, cookie, now)


async def remember(store: Store, cookie: str, username: str, now: int) -> str:
    """Note that this person has signed in on this device; its cookie, a new one if it had none of ours."""
    people = await _people(store, cookie, now)
    kept = cookie if people else new_secret()
    latest = (*(one for one in people if one != digest(username)), digest(username))[-_MOST:]
    await store.key_values.put(_KIND, digest(kept), msgspec.json.encode(latest), now + LIFE)
    return kept


async def _people(store: Store, cookie: str, now: int) -> tuple[str, ...]:
    text = await store.key_values.get(_KIND, digest(cookie), now) if cookie else None
    return () if text is None else msgspec.json.decode(text, type=tuple[str, ...])
