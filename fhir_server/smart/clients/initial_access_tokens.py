"""Initial access tokens (RFC 7591 3): what a developer needs to register an app outside a demo.  One registration each."""

from __future__ import annotations

from typing import Final

from fhir_server.smart.core.context import DAY, digest, new_secret
from fhir_server.store import Store

LIFE: Final = 7 * DAY
_KIND: Final = "client-invitation"


async def invite(store: Store, now: int) -> str:
    """A new token; shown once."""
    token = new_secret()
    await store.secrets.replace(_KIND, digest(token), b"", now + LIFE)
    return token


async def valid(store: Store, token: str, now: int) -> bool:
    return await store.secrets.peek(_KIND, digest(token), now) is not None


async def use(store: Store, token: str, now: int) -> bool:
    """Use the token up; True for the one registration that does."""
    return await store.secrets.take(_KIND, digest(token), now) is not None
