"""What this server may ask of one partner, for all viewers and all server processes together: calls at once, and calls a minute.

The store counts.  If a partner asks to wait (``Retry-After``, RFC 9110 10.2.3), nobody asks it until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Final

from fhir_server.linking.context import BusyError, LinkingContext
from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.context import HOUR, MINUTE, SECOND, new_secret
from fhir_server.smart.core.rate_limits import RateLimit

_PAUSES: Final = "link-pause"
_PLACES: Final = "link-place"
_PAUSE: Final = 0.05  # seconds between looks for a free place
_HELD: Final = MINUTE  # when a place of a process that was killed is free again; longer than a call may take
MAX_WAIT: Final = HOUR  # of a partner's request to wait
DEFAULT_WAIT: Final = MINUTE  # after a 429 that names no time


@asynccontextmanager
async def turn(context: LinkingContext, organization: Organization) -> AsyncIterator[None]:
    """Wait for a place among the calls to this partner, and hold it.  Raises BusyError if the partner is not to be asked now."""
    key, mark = await _take_place(context, organization)
    try:
        if wait := await _paused(context, organization):
            raise BusyError(wait, asked=True)
        if wait := await _limit(organization.per_minute).take(context.smart.store.key_values, organization.id, context.smart.now()):
            raise BusyError(wait)
        yield
    finally:
        # Only this call's own place: after its end another process may have it.
        await context.smart.store.key_values.replace_value(_PLACES, key, mark, b"", 0)


async def pause(context: LinkingContext, organization: Organization, retry_after: str) -> int:
    """Ask this partner nothing until the time that it named.  Return the microseconds until then, at most :data:`MAX_WAIT`."""
    now = context.smart.now()
    wait = min(MAX_WAIT, _parse(retry_after, now) or DEFAULT_WAIT)
    await context.smart.store.key_values.put(_PAUSES, organization.id, str(now + wait).encode(), now + wait)
    return wait


async def _paused(context: LinkingContext, organization: Organization) -> int:
    now = context.smart.now()
    until = await context.smart.store.key_values.get(_PAUSES, organization.id, now)
    return max(0, int(until) - now) if until else 0


async def _take_place(context: LinkingContext, organization: Organization) -> tuple[str, bytes]:
    values, mark, waited = context.smart.store.key_values, new_secret().encode(), 0.0
    while waited <= context.deadline:
        for number in range(organization.at_once):
            key = f"{organization.id} {number}"
            if await values.put_if_absent(_PLACES, key, mark, context.smart.now() + _HELD):
                return key, mark
        await asyncio.sleep(_PAUSE)
        waited += _PAUSE
    raise BusyError(0)


@cache
def _limit(most: int) -> RateLimit:
    return RateLimit("linked organization", most, MINUTE)


def _parse(retry_after: str, now: int) -> int:
    """Return the microseconds of a ``Retry-After`` header, in seconds or as a date; 0 if it is neither or in the past."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * SECOND
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int(at.timestamp()) * SECOND - now)
