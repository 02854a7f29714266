"""Calls to servers that the operator has registered: one door, with a deadline, a size limit, no redirects, JSON objects or nothing.

For addresses that somebody else chose (an app's own registration) see ``outbound``.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from fhir_server.smart.core.context import SmartContext
from fhir_server.web.public_fetch import Hosts, is_allowed

MOST: Final = 4 * 1024 * 1024  # bytes of one answer
_WAITS: Final = httpx.Timeout(10, connect=5)
# Uncompressed only: a small compressed answer could unpack to any size.
_ACCEPTED: Final = {"Accept": "application/fhir+json, application/json;q=0.9", "Accept-Encoding": "identity"}


class NoResponseError(Exception):
    """Nothing came back."""


class InvalidResponseError(Exception):
    """Something came back that is too large, or packed."""


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """An answer: its HTTP status, and the JSON object in it (empty for any other body)."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JsonClient:
    """The way out.

    ``transport``  carries the calls; None: the network
    ``deadline``   seconds after which a call is given up, however busily the other server answers
    """

    transport: httpx.AsyncBaseTransport | None = None
    deadline: float = 20

    async def get(self, url: str, params: dict[str, str] | None = None, token: str = "") -> JsonResponse:
        """Raises NoAnswer, BadAnswer."""
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return await self._send("GET", url, {"params": params, "headers": bearer | _ACCEPTED})

    async def post_form(self, url: str, body: str, headers: dict[str, str]) -> JsonResponse:
        """Raises NoAnswer, BadAnswer."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._send("POST", url, {"content": body, "headers": headers | _ACCEPTED | form})

    async def _send(self, method: str, url: str, options: dict[str, Any]) -> JsonResponse:
        try:
            async with (
                asyncio.timeout(self.deadline),
                httpx.AsyncClient(transport=self.transport, verify=_trust(), timeout=_WAITS) as client,
                client.stream(method, url, **options) as response,
            ):
                return JsonResponse(response.status_code, _object(await _read(response)))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
            raise NoResponseError from None


def origin_of(url: str) -> str:
    """``scheme://host[:port]``, in one spelling for each origin."""
    parts = urlsplit(url)
    port = parts.port
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, default) else "")


def callable_url(smart: SmartContext, url: object) -> bool:
    """Whether we may send anyone, or anything, there: https, or plain http to this machine outside production."""
    return isinstance(url, str) and is_allowed(url, Hosts.of(smart.is_demo))


def text(value: object) -> str:
    """A member of another server's JSON that should be a string; "" for anything else."""
    return value if isinstance(value, str) else ""


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise InvalidResponseError
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MOST:
            raise InvalidResponseError
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
