"""The public keys of clients that publish them at an address (``jwks_uri``), kept no longer than that address allows.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html#registering-a-client.  A key id that is not
among the keys kept has them fetched again, once, so that a client may start with a new key at any time; floor and
budget keep somebody who sends us made-up assertions from turning us against the client's server.  Of many requests in wait
for keys that then cannot be had, none waits for a second fetch.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, RSAKey

from fhir_server.smart.core.context import HOUR, MINUTE, SECOND, SmartContext
from fhir_server.web.public_fetch import Hosts, UnfetchableError, fetch

LONGEST: Final = HOUR  # however long the address says its answer is good for
UNSAID: Final = 5 * MINUTE  # where it says nothing
FLOOR: Final = 10 * SECOND  # between two fetches because of an unknown key id
BUDGET: Final = 30  # fetches of one address in a minute
REMEMBERED: Final = 1000  # addresses
SHORTEST: Final = 2048  # bits of an RSA key (RFC 7518 3.3)


class KeysUnavailableError(Exception):
    """The client's keys cannot be had now."""


class UnreadableKeysError(ValueError):
    """What should be a JWK Set is none."""


@dataclass(slots=True)
class _CachedKeys:
    keys: KeySet | None = None
    until: int = 0
    failures: int = 0
    fetches: deque[int] = field(default_factory=lambda: deque(maxlen=BUDGET))
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class JwksCache:
    """The key sets of one server process."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._kept: OrderedDict[str, _CachedKeys] = OrderedDict()

    async def keys(self, url: str, kid: str) -> KeySet:
        """The keys at this address, fetched anew if they have run out or do not have this key id.  Raises NoKeys."""
        kept = self._kept.setdefault(url, _CachedKeys())
        self._kept.move_to_end(url)
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        failures = kept.failures
        async with kept.lock:
            if kept.failures != failures:
                raise KeysUnavailableError  # while this one waited
            now = self._smart.now()
            if kept.keys is not None and now < kept.until:
                known = any(key.kid == kid for key in kept.keys)
                if known or now < kept.fetches[-1] + FLOOR:
                    return kept.keys
            return await self._fetch(url, kept, now)

    async def _fetch(self, url: str, kept: _CachedKeys, now: int) -> KeySet:
        if len(kept.fetches) == BUDGET and now < kept.fetches[0] + MINUTE:
            raise KeysUnavailableError
        kept.fetches.append(now)
        try:
            answer = await fetch(self._smart.network, url, Hosts.of(self._smart.is_demo))
            keys = read(_object(answer.body))
        except (UnfetchableError, ValueError, RecursionError):
            kept.keys, kept.failures = None, kept.failures + 1
            raise KeysUnavailableError from None
        life = _life(answer.cache_control, answer.age)
        kept.keys, kept.until = (keys, now + life) if life > 0 else (None, 0)
        return keys


def read(jwks: dict[str, Any]) -> KeySet:
    """The keys of a JWK Set.  Raises Unreadable."""
    try:
        return KeySet.import_key_set(jwks)  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnreadableKeysError from None


def long_enough(key: Key) -> bool:
    """Whether a key is one that cannot be taken apart."""
    return not isinstance(key, RSAKey) or key.raw_value.key_size >= SHORTEST


def _life(cache_control: str, age: str) -> int:
    """For how long an answer may be kept (RFC 9111), in microseconds."""
    said = {name.strip().lower(): value.strip(' "') for name, _, value in (part.partition("=") for part in cache_control.split(","))}
    if "no-store" in said or "no-cache" in said:
        return 0
    if "max-age" not in said:
        return UNSAID
    seconds = re.fullmatch(r"[0-9]{1,10}", said["max-age"])
    passed = int(age) if re.fullmatch(r"[0-9]{1,10}", age) else 0
    return min(LONGEST, (int(seconds[0]) - passed) * SECOND) if seconds else 0


def _object(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError
    return value
