"""How often one address may have this process do something for it, before anybody has signed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from typing import Final

from fhir_server.smart.core.context import SECOND

_REMEMBERED: Final = 10_000  # addresses


def counted_address(address: str) -> str:
    """Whom limits count for one: an IPv4 address; of an IPv6 address its first 64 bits, all of which one household or machine has."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))


class RateLimit:
    """At most ``most`` in any stretch of ``window`` microseconds, for each address (:func:`party`)."""

    def __init__(self, most: int, window: int) -> None:
        self._most = most
        self._window = window
        self._seen: OrderedDict[str, deque[int]] = OrderedDict()

    def count_if_allowed(self, address: str, now: int) -> bool:
        """Whether one more is within the limit; if so, it counts."""
        if self.is_reached(address, now):
            return False
        self.count(address, now)
        return True

    def is_reached(self, address: str, now: int) -> bool:
        """Whether one more would be too many."""
        seen = self._seen.get(counted_address(address))
        return seen is not None and len(seen) == self._most and now < seen[0] + self._window

    def count(self, address: str, now: int) -> None:
        """Count one."""
        name = counted_address(address)
        self._seen.setdefault(name, deque(maxlen=self._most)).append(now)
        self._seen.move_to_end(name)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def headers(self, address: str, now: int) -> dict[str, str]:
        """``Retry-After`` (RFC 9110 10.2.3): the seconds after which one more is allowed again."""
        seen = self._seen.get(counted_address(address))
        left = seen[0] + self._window - now if seen else 0
        return {"Retry-After": str(max(1, -(-left // SECOND)))}
