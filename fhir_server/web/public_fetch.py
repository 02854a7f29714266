"""Fetching a small document from an address that somebody else chose, without being used against our own network.

The host is resolved once, every address it has must be a public one, and the connection goes to the address that was
checked: a name that answers differently the second time (DNS rebinding) gains nothing.  No redirects, no proxies, no
compressed answers, a deadline for the whole and a limit on its size (RFC 9700 4.11, OWASP on SSRF).
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx

MAX_BYTES: Final = 64 * 1024  # bytes
DEADLINE: Final = 5.0  # seconds for everything
RESOLVERS: Final = 8  # names that are looked up at once
_LOOPBACK_NAMES: Final = ("localhost",)
# What of IPv6 is public; within it, the two ranges that carry an IPv4 address of the writer's choice.
_GLOBAL: Final = ipaddress.ip_network("2000::/3")
_TUNNELS: Final = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


class UnfetchableError(Exception):
    """The document could not be had, or may not be asked for."""


@dataclass(frozen=True, slots=True)
class FetchedDocument:
    """An answer of status 200: its body, and its ``Cache-Control`` and ``Age`` headers ("" where there is none)."""

    body: bytes
    cache_control: str
    age: str


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system resolves it.

    In threads of its own: a name whose server never answers keeps one busy for long after the deadline, and nobody but other
    addresses that somebody chose should have to wait for that.
    """
    ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await anyio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=_resolvers())
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Network:
    """How other servers are reached: who resolves names, and what carries requests (None: the network itself)."""

    resolve: Callable[[str, int], Awaitable[Sequence[str]]] = resolve_host
    transport: httpx.AsyncBaseTransport | None = None


def is_allowed(url: str, *, local: bool) -> bool:
    """Whether an address may be asked at all: https, or with ``local`` plain http to this machine."""
    if not url.isascii() or not url.isprintable() or any(sign in url for sign in ' \\#<>"'):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and local and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether a host, as written in an address, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def is_public(address: str) -> bool:
    """Whether an IP address is one that anyone on the internet could reach."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.is_global and ip in _GLOBAL and not any(ip in tunnel for tunnel in _TUNNELS)
    return ip.is_global and not ip.is_multicast


async def fetch(network: Network, url: str, *, local: bool) -> FetchedDocument:
    """Get a document.  ``local``: the server is a demo or a test, where this machine and its network may be asked.

    Raises Unfetchable.
    """
    if not is_allowed(url, local=local):
        raise UnfetchableError
    try:
        async with asyncio.timeout(DEADLINE):
            return await _fetched(network, url, await _address(network, url, local))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
        raise UnfetchableError from None


async def _address(network: Network, url: str, local: bool) -> str:
    parts = urlsplit(url)
    addresses = await network.resolve(str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80))
    # All of them: of a name with a public and a private address, which one is asked would be chance.
    if not addresses or not (local or all(is_public(address) for address in addresses)):
        raise UnfetchableError
    return addresses[0]


async def _fetched(network: Network, url: str, address: str) -> FetchedDocument:
    asked = httpx.URL(url)
    request = httpx.Request(
        "GET",
        asked.copy_with(host=address),
        headers=_HEADERS | {"Host": asked.netloc.decode("ascii")},
        extensions={"sni_hostname": asked.host, "timeout": httpx.Timeout(DEADLINE).as_dict()},
    )
    async with httpx.AsyncClient(transport=network.transport, verify=_trust(), trust_env=False, follow_redirects=False) as client:
        response = await client.send(request, stream=True)
        try:
            return await _read(response)
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
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
