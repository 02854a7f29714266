"""Initial access tokens (RFC 7591 3), which a developer needs to register an app except in a demo.  One registration each."""

from __future__ import annotations

from typing import Final

from fhir_server.smart.core.context import DAY, digest, new_secret
from fhir_server.store import Store

LIFE: Final = 7 * DAY
_KIND: Final = "client-invitation"


async def issue(store: Store, now: int) -> str:
    """Issue a token, valid for :data:`LIFE`.  Only its digest is stored."""
    token = new_secret()
    await store.key_values.put(_KIND, digest(token), b"", now + LIFE)
    return token


async def is_valid(store: Store, token: str, now: int) -> bool:
    """Whether the token can still be used."""
    return await store.key_values.get(_KIND, digest(token), now) is not None


async def consume(store: Store, token: str, now: int) -> bool:
    """Consume the token.  True for exactly one registration."""
    return await store.key_values.pop(_KIND, digest(token), now) is not None
