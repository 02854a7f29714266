"""Rate limits by IP address, counted in this process, for requests before sign-in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from typing import Final

from fhir_server.smart.core.context import SECOND

_MAX_ADDRESSES: Final = 10_000


def counted_address(address: str) -> str:
    """The address that limits count by: an IPv4 address, or the /64 network of an IPv6 address, which belongs to one household."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))


class RateLimit:
    """At most ``most`` requests in any ``window`` microseconds for each address (:func:`counted_address`)."""

    def __init__(self, most: int, window: int) -> None:
        self._most = most
        self._window = window
        self._times: OrderedDict[str, deque[int]] = OrderedDict()

    def count_if_allowed(self, address: str, now: int) -> bool:
        """Count a request and return True; return False, without counting it, if the limit is reached."""
        if self.is_reached(address, now):
            return False
        self.count(address, now)
        return True

    def is_reached(self, address: str, now: int) -> bool:
        """Whether the next request would exceed the limit."""
        times = self._times.get(counted_address(address))
        return times is not None and len(times) == self._most and now < times[0] + self._window

    def count(self, address: str, now: int) -> None:
        """Count a request."""
        name = counted_address(address)
        self._times.setdefault(name, deque(maxlen=self._most)).append(now)
        self._times.move_to_end(name)
        if len(self._times) > _MAX_ADDRESSES:
            self._times.popitem(last=False)

    def headers(self, address: str, now: int) -> dict[str, str]:
        """The ``Retry-After`` header (RFC 9110 10.2.3): seconds until the next request is allowed."""
        times = self._times.get(counted_address(address))
        left = times[0] + self._window - now if times else 0
        return {"Retry-After": str(max(1, -(-left // SECOND)))}
