"""HTTP client for servers that the operator has registered: JSON only, with a deadline and a size limit, without redirects.

For URLs that others choose (in an app's registration) see :mod:`fhir_server.web.public_fetch`.
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

MAX_BYTES: Final = 4 * 1024 * 1024  # of one response
_TIMEOUT: Final = httpx.Timeout(10, connect=5)
# Uncompressed only: a small compressed response could expand to any size.
_ACCEPTED: Final = {"Accept": "application/fhir+json, application/json;q=0.9", "Accept-Encoding": "identity"}


class NoResponseError(Exception):
    """The server did not respond in time, or the connection failed."""


class SlowResponseError(NoResponseError):
    """The server did not respond in time, although a connection to it was possible."""


class InvalidResponseError(Exception):
    """The response is too large or compressed."""


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A response: its HTTP status and its JSON object (empty for any other body).

    ``retry_after``  its ``Retry-After`` header, "" for none
    ``size``         bytes of the body
    """

    status: int
    body: dict[str, Any]
    retry_after: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class JsonClient:
    """Sends requests to other servers.

    ``transport``  sends the requests; None: over the network
    ``deadline``   seconds after which a request fails, even while the other server is still sending
    """

    transport: httpx.AsyncBaseTransport | None = None
    deadline: float = 20

    async def get(self, url: str, params: dict[str, str] | None = None, token: str = "") -> JsonResponse:
        """Send a GET, with a bearer token if given.  Raises NoResponseError, InvalidResponseError."""
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return await self._send("GET", url, {"params": params, "headers": bearer | _ACCEPTED})

    async def post_form(self, url: str, body: str, headers: dict[str, str]) -> JsonResponse:
        """POST a form.  Raises NoResponseError, InvalidResponseError."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._send("POST", url, {"content": body, "headers": headers | _ACCEPTED | form})

    async def _send(self, method: str, url: str, options: dict[str, Any]) -> JsonResponse:
        try:
            async with (
                asyncio.timeout(self.deadline),
                httpx.AsyncClient(transport=self.transport, verify=_tls_context(), timeout=_TIMEOUT) as client,
                client.stream(method, url, **options) as response,
            ):
                body = await _read(response)
                return JsonResponse(response.status_code, _parse_object(body), response.headers.get("retry-after", ""), len(body))
        except (httpx.ReadTimeout, httpx.WriteTimeout, TimeoutError):
            raise SlowResponseError from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            raise NoResponseError from None


def origin_of(url: str) -> str:
    """``scheme://host[:port]`` of a URL, without the default port.  Raises ValueError for an invalid port."""
    parts = urlsplit(url)
    port = parts.port
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, default) else "")


def is_callable_url(smart: SmartContext, url: object) -> bool:
    """Whether the server may call or redirect to this URL: https, or http to this machine outside production."""
    return isinstance(url, str) and is_allowed(url, Hosts.of(smart.is_demo))


def as_text(value: object) -> str:
    """The value, if it is a string; else "".  For members of other servers' JSON."""
    return value if isinstance(value, str) else ""


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise InvalidResponseError
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise InvalidResponseError
    return bytes(body)


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()
