"""Fetches a small document from a URL that a client chose, or posts a form to one, with protection against SSRF (RFC 9700 4.11, OWASP).

The host is resolved once, all its addresses must be public, and the connection goes to a checked address.  This also
prevents DNS rebinding.  There are no redirects, proxies or compressed responses.  Time and size are limited.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.to_thread
import httpx

MAX_BYTES: Final = 64 * 1024
DEADLINE: Final = 5.0  # seconds for the whole fetch
RESOLVERS: Final = 8  # concurrent DNS lookups
_LOOPBACK_NAMES: Final = ("localhost",)
# Public IPv6 addresses, and the two ranges in them that embed an IPv4 address (Teredo, 6to4).
_GLOBAL: Final = ipaddress.ip_network("2000::/3")
_TUNNELS: Final = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Hosts(Enum):
    """Which hosts may be reached."""

    PUBLIC = "public"  # https to public addresses
    PUBLIC_OR_LOCAL = "public-or-local"  # also http to this machine, and private addresses: for demos and tests

    @staticmethod
    def of(is_demo: bool) -> Hosts:
        """Return the hosts that a server reaches: local ones too if it is a demo or a test."""
        return Hosts.PUBLIC_OR_LOCAL if is_demo else Hosts.PUBLIC


class UnfetchableError(Exception):
    """The document cannot be fetched, or its URL is not allowed."""


@dataclass(frozen=True, slots=True)
class FetchedDocument:
    """A response with status 200: its body, and its ``Cache-Control`` and ``Age`` headers ("" if absent)."""

    body: bytes
    cache_control: str
    age: str


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host from the system's resolver.

    Lookups have their own threads.  A name server that does not answer blocks a thread after the deadline, and that must not
    delay other work.
    """
    lookup = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await anyio.to_thread.run_sync(lookup, abandon_on_cancel=True, limiter=_resolvers())
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Network:
    """How other servers are reached: the resolver, and the HTTP transport (None for the real network)."""

    resolve: Callable[[str, int], Awaitable[Sequence[str]]] = resolve_host
    transport: httpx.AsyncBaseTransport | None = None


def is_allowed(url: str, hosts: Hosts) -> bool:
    """Whether a URL may be fetched: https, or http to this machine if ``hosts`` allow that.  Does not resolve the host."""
    if not url.isascii() or not url.isprintable() or any(character in url for character in ' \\#<>"'):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and hosts is Hosts.PUBLIC_OR_LOCAL and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether the host of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.is_global and ip in _GLOBAL and not any(ip in tunnel for tunnel in _TUNNELS)
    return ip.is_global and not ip.is_multicast


async def fetch(network: Network, url: str, hosts: Hosts) -> FetchedDocument:
    """Fetch a document from one of these hosts.  Raises UnfetchableError."""
    if not is_allowed(url, hosts):
        raise UnfetchableError
    try:
        async with asyncio.timeout(DEADLINE):
            return await _fetch_from(network, url, await checked_address(network, url, hosts))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
        raise UnfetchableError from None


async def post_form(network: Network, url: str, hosts: Hosts, fields: Mapping[str, str]) -> int:
    """Post a form to one of these hosts and return the status of the answer, whose body is not read.  Raises UnfetchableError."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return await send(network, "POST", url, hosts, headers, urlencode(fields).encode())


async def send(
    network: Network, method: str, url: str, hosts: Hosts, headers: Mapping[str, str], content: bytes, deadline: float = DEADLINE
) -> int:
    """Send a body to one of these hosts and return the status of the answer, whose body is not read.

    ``deadline``: seconds for all of it.  Raises UnfetchableError.
    """
    if not is_allowed(url, hosts):
        raise UnfetchableError
    try:
        async with asyncio.timeout(deadline):
            address = await checked_address(network, url, hosts)
            async with sent(network, method, url, address, headers, content, deadline) as response:
                return response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
        raise UnfetchableError from None


async def checked_address(network: Network, url: str, hosts: Hosts) -> str:
    """The address to which a request for this URL goes.  Raises UnfetchableError if the host has none that may be reached."""
    parts = urlsplit(url)
    addresses = await network.resolve(str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80))
    # Checks all addresses: which one of a public and a private address would be used is chance.
    if not addresses or not (hosts is Hosts.PUBLIC_OR_LOCAL or all(is_public(address) for address in addresses)):
        raise UnfetchableError
    return addresses[0]


async def _fetch_from(network: Network, url: str, address: str) -> FetchedDocument:
    async with sent(network, "GET", url, address, {}) as response:
        return await _read(response)


@asynccontextmanager
async def sent(
    network: Network, method: str, url: str, address: str, headers: Mapping[str, str], content: bytes = b"", deadline: float = DEADLINE
) -> AsyncIterator[httpx.Response]:
    """Send a request to this address of the URL's host.  The body of the response is not read yet."""
    target = httpx.URL(url)
    request = httpx.Request(
        method,
        target.copy_with(host=address),
        headers={**_HEADERS, **headers, "Host": target.netloc.decode("ascii")},
        content=content or None,
        extensions={"sni_hostname": target.host, "timeout": httpx.Timeout(deadline).as_dict()},
    )
    async with httpx.AsyncClient(transport=network.transport, verify=_ssl_context(), trust_env=False, follow_redirects=False) as client:
        response = await client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


async def _read(response: httpx.Response) -> FetchedDocument:
    if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
        raise UnfetchableError
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise UnfetchableError
    return FetchedDocument(bytes(body), response.headers.get("cache-control", ""), response.headers.get("age", ""))


@functools.cache
def _resolvers() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(RESOLVERS)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return ssl.create_default_context()
