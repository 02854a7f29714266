"""Network addresses from which people have signed in with a password: what others try there does not slow them (NIST SP 800-63B).

Only a digest of user name and address is stored.
"""

from __future__ import annotations

from typing import Final

from fhir_server.smart.core.context import DAY, digest
from fhir_server.smart.core.rate_limits import counted_address
from fhir_server.store import KeyValueStore

LIFE: Final = 180 * DAY
_KIND: Final = "known-network"


async def is_known(values: KeyValueStore, username: str, address: str, now: int) -> bool:
    """Whether this user (canonical name) has signed in from this address within :data:`LIFE`."""
    return await values.get(_KIND, _key(username, address), now) is not None


async def remember(values: KeyValueStore, username: str, address: str, now: int, family: str) -> None:
    """Store that this user has signed in from this address.  ``family``: the key family of the record."""
    await values.put(_KIND, _key(username, address), b"", now + LIFE, family)


def _key(username: str, address: str) -> str:
    return digest(f"{username} {counted_address(address)}")
