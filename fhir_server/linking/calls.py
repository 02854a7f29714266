"""Calls to other systems: one door, with a deadline, a size limit, no redirects, and JSON objects or nothing."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx

from fhir_server.linking.core import BAD_ANSWER, NO_ANSWER, Linking, Unreachable

MOST: Final = 4 * 1024 * 1024  # bytes of one answer
_WAITS: Final = httpx.Timeout(10, connect=5)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its HTTP status, and the JSON object in it (empty for any other body)."""

    status: int
    body: dict[str, Any]


async def get(room: Linking, url: str, params: dict[str, str] | None = None, token: str = "") -> Reply:
    """Raises Unreachable."""
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    return await _sent(room, "GET", url, {"params": params, "headers": bearer | _ACCEPTED})


async def post_form(room: Linking, url: str, body: str, headers: dict[str, str]) -> Reply:
    """Raises Unreachable."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return await _sent(room, "POST", url, {"content": body, "headers": headers | _ACCEPTED | form})


# Uncompressed only: a small compressed answer could unpack to any size.
_ACCEPTED: Final = {"Accept": "application/fhir+json, application/json;q=0.9", "Accept-Encoding": "identity"}


async def _sent(room: Linking, method: str, url: str, options: dict[str, Any]) -> Reply:
    try:
        async with (
            asyncio.timeout(room.deadline),
            httpx.AsyncClient(transport=room.transport, verify=_trust(), timeout=_WAITS) as client,
            client.stream(method, url, **options) as response,
        ):
            return Reply(response.status_code, _object(await _read(response)))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
        raise Unreachable(NO_ANSWER) from None


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Unreachable(BAD_ANSWER)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MOST:
            raise Unreachable(BAD_ANSWER)
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
