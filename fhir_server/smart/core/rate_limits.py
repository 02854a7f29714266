"""Limits of requests, and of bytes they store, by IP address and client, shared by all server processes: the store counts.

A record holds the times of the last counted requests of one address.  It changes by compare-and-set, so processes that count at
the same moment miss nothing, and it expires with its window.  Requests that are refused write nothing.  If the store cannot
count, the request is refused (503), because otherwise an attacker could end a limit with the load of the attack.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import struct
from typing import Final
from weakref import WeakValueDictionary

import anyio

from fhir_server.errors import Problem
from fhir_server.smart.core.context import SECOND, digest
from fhir_server.store import KeyValueStore

_KIND: Final = "rate-limit"
_MARK: Final = 8  # random bytes before the times: two processes that count the same instant do not write the same value
_VOLUME: Final = struct.Struct(">qq")  # the start of the window, and the bytes in it
_log: Final = logging.getLogger(__name__)


def counted_address(address: str) -> str:
    """The address that limits count by: an IPv4 address, or the /64 network of an IPv6 address, which belongs to one household."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))


def retry_after(wait: int) -> dict[str, str]:
    """The ``Retry-After`` header (RFC 9110 10.2.3) for a wait in microseconds: whole seconds, at least one."""
    return {"Retry-After": str(max(1, -(-wait // SECOND)))}


class RateLimit:
    """At most ``most`` requests in any ``window`` microseconds for each address (:func:`counted_address`), or client and address.

    ``name`` is the same in all processes, and another for each limit.
    """

    def __init__(self, name: str, most: int, window: int) -> None:
        self._name = name
        self._most = most
        self._window = window
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def take(self, values: KeyValueStore, address: str, now: int, client: str = "") -> int:
        """Count a request and return 0; if the limit is reached, count nothing and return the microseconds until the next is allowed.

        Raises Problem ``busy`` if the store cannot count.
        """
        key = self._key(address, client)
        lock = self._locks.setdefault(key, anyio.Lock())
        try:
            async with lock:  # requests of this process do not compete with each other
                while True:
                    old = await values.get(_KIND, key, now)
                    times = _times(old)
                    if wait := self._wait(times, now):
                        return wait
                    new = _encoded([*times, now][-self._most :])
                    expires = max([*times, now]) + self._window
                    if old is None and await values.put_if_absent(_KIND, key, new, expires):
                        return 0
                    if old is not None and await values.replace_value(_KIND, key, old, new, expires):
                        return 0
        except Problem:
            _log.warning("The limit %s cannot be counted, so requests that it limits are refused.", self._name)
            raise

    async def wait(self, values: KeyValueStore, address: str, now: int, client: str = "") -> int:
        """The microseconds until the next request is allowed, 0 for none.  Counts nothing."""
        return self._wait(_times(await values.get(_KIND, self._key(address, client), now)), now)

    def _wait(self, times: list[int], now: int) -> int:
        return max(0, times[0] + self._window - now) if len(times) == self._most else 0

    def _key(self, address: str, client: str) -> str:
        return digest(f"{self._name} {counted_address(address)} {client}")


class VolumeLimit:
    """At most ``most`` bytes for each address (:func:`counted_address`), in windows of ``window`` microseconds.

    A window begins with the first bytes after the one before.
    """

    def __init__(self, name: str, most: int, window: int) -> None:
        self._name = name
        self._most = most
        self._window = window

    async def take(self, values: KeyValueStore, address: str, size: int, now: int) -> int:
        """Count ``size`` bytes and return 0; over the limit, count nothing and return the microseconds until the window ends.

        Raises Problem ``busy`` if the store cannot count.
        """
        key = digest(f"{self._name} {counted_address(address)}")
        while True:
            old = await values.get(_KIND, key, now)
            start, used = _VOLUME.unpack(old[_MARK:]) if old is not None else (now, 0)
            if used + size > self._most:
                return max(1, int(start) + self._window - now)
            new = os.urandom(_MARK) + _VOLUME.pack(start, used + size)
            if old is None and await values.put_if_absent(_KIND, key, new, start + self._window):
                return 0
            if old is not None and await values.replace_value(_KIND, key, old, new):
                return 0


def _encoded(times: list[int]) -> bytes:
    return os.urandom(_MARK) + struct.pack(f">{len(times)}q", *sorted(times))


def _times(value: bytes | None) -> list[int]:
    """The counted times, the earliest first."""
    return [] if value is None else [time for (time,) in struct.iter_unpack(">q", value[_MARK:])]
