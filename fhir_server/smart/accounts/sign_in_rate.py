"""Limits how often passwords are checked at all, right or wrong: each check costs a password hash.

A browser in which the person has signed in before is counted by itself, so a flood from its network does not keep it out.
"""

from __future__ import annotations

from typing import Final

from fhir_server.smart.accounts import known_devices
from fhir_server.smart.accounts.users import canonical
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest
from fhir_server.smart.core.rate_limits import RateLimit

PER_ADDRESS: Final = 120  # a minute; a hospital ward or a family shares one address
PER_DEVICE: Final = 30  # a minute


class SignInRate:
    """The two limits, for one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._by_address = RateLimit("sign-in", PER_ADDRESS, MINUTE)
        self._by_device = RateLimit("sign-in on a known device", PER_DEVICE, MINUTE)

    async def take(self, device: str, username: str, address: str, now: int) -> int:
        """Count a sign-in; return 0, or the microseconds until the next is allowed.  ``device`` is the browser's device cookie.

        Raises Problem ``busy`` if the store cannot count.
        """
        values = self._smart.store.key_values
        if await known_devices.is_known(self._smart.store, device, canonical(username), now):
            return await self._by_device.take(values, "", now, digest(device))
        return await self._by_address.take(values, address, now)


def in_words(wait: int) -> str:
    """A wait in microseconds, as a page says it: whole seconds up to a minute, then whole minutes, never less than it is."""
    if wait <= MINUTE:
        seconds = max(1, -(-wait // SECOND))
        return f"{seconds} second{'s' if seconds > 1 else ''}"
    return f"{-(-wait // MINUTE)} minutes"
