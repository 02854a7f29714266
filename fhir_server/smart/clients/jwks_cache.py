"""Cache of the public keys that clients publish at a URL (``jwks_uri``), for as long as the response allows.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html#registering-a-client.  An unknown key id
causes one new fetch, so that a client can use a new key at once.  :data:`MIN_REFETCH_INTERVAL` of each process, and
:data:`MAX_FETCHES_PER_MINUTE` of all together, prevent forged assertions from flooding the client's server.  Requests that wait for a fetch
that fails all fail with it, without another fetch.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, RSAKey

from fhir_server.smart.core.context import HOUR, MINUTE, SECOND, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.web.public_fetch import Hosts, UnfetchableError, fetch

MAX_LIFETIME: Final = HOUR  # even if the response allows more
DEFAULT_LIFETIME: Final = 5 * MINUTE  # if the response does not say
MIN_REFETCH_INTERVAL: Final = 10 * SECOND  # between two fetches for unknown key ids
MAX_FETCHES_PER_MINUTE: Final = 30  # from one URL
MAX_URLS: Final = 1000
MIN_RSA_BITS: Final = 2048  # RFC 7518 3.3


class KeysUnavailableError(Exception):
    """The client's keys cannot be fetched now."""


class UnreadableKeysError(ValueError):
    """The document is not a valid JWK Set."""


@dataclass(slots=True)
class _CachedKeys:
    keys: KeySet | None = None
    expires: int = 0
    failures: int = 0
    fetched: int = 0
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class JwksCache:
    """The cached key sets of one server process."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._limit = RateLimit("fetch of keys", MAX_FETCHES_PER_MINUTE, MINUTE)
        self._entries: OrderedDict[str, _CachedKeys] = OrderedDict()

    async def keys(self, url: str, kid: str) -> KeySet:
        """The keys at this URL, fetched again if they have expired or do not contain this key id.

        Raises KeysUnavailableError if they cannot be fetched or the URL was fetched too often, Problem ``busy`` if the store
        cannot count the fetch.
        """
        entry = self._entries.setdefault(url, _CachedKeys())
        self._entries.move_to_end(url)
        if len(self._entries) > MAX_URLS:
            self._entries.popitem(last=False)
        failures = entry.failures
        async with entry.lock:
            if entry.failures != failures:
                raise KeysUnavailableError  # the fetch that this request waited for failed
            now = self._smart.now()
            if entry.keys is not None and now < entry.expires:
                known = any(key.kid == kid for key in entry.keys)
                if known or now < entry.fetched + MIN_REFETCH_INTERVAL:
                    return entry.keys
            return await self._fetch(url, entry, now)

    async def _fetch(self, url: str, entry: _CachedKeys, now: int) -> KeySet:
        if await self._limit.take(self._smart.store.key_values, url, now):
            raise KeysUnavailableError
        entry.fetched = now
        try:
            response = await fetch(self._smart.network, url, Hosts.of(self._smart.is_demo))
            keys = parse_jwks(_parse_object(response.body))
        except (UnfetchableError, ValueError, RecursionError):
            entry.keys, entry.failures = None, entry.failures + 1
            raise KeysUnavailableError from None
        lifetime = _lifetime(response.cache_control, response.age)
        entry.keys, entry.expires = (keys, now + lifetime) if lifetime > 0 else (None, 0)
        return keys


def parse_jwks(jwks: dict[str, Any]) -> KeySet:
    """The keys of a JWK Set.  Raises UnreadableKeysError."""
    try:
        return KeySet.import_key_set(jwks)  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnreadableKeysError from None


def is_strong_key(key: Key) -> bool:
    """Whether a key is long enough: RSA keys need :data:`MIN_RSA_BITS`, other types have no short keys."""
    return not isinstance(key, RSAKey) or key.raw_value.key_size >= MIN_RSA_BITS


def _lifetime(cache_control: str, age: str) -> int:
    """How long a response may be cached (RFC 9111), in microseconds."""
    directives = {name.strip().lower(): value.strip(' "') for name, _, value in (part.partition("=") for part in cache_control.split(","))}
    if "no-store" in directives or "no-cache" in directives:
        return 0
    if "max-age" not in directives:
        return DEFAULT_LIFETIME
    seconds = re.fullmatch(r"[0-9]{1,10}", directives["max-age"])
    age_seconds = int(age) if re.fullmatch(r"[0-9]{1,10}", age) else 0
    return min(MAX_LIFETIME, (int(seconds[0]) - age_seconds) * SECOND) if seconds else 0


def _parse_object(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError
    return value
