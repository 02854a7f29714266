"""Reads a large document from a URL that a client chose, a part at a time, under the rules of :mod:`~fhir_server.web.public_fetch`.

A part begins at a byte of the document (RFC 9110 14).  A server that gives whole documents only is read from the start again, as far
as the time allows.  ``If-Range`` makes sure that all parts are of one version of the document.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import httpx

from fhir_server.web.public_fetch import Hosts, Network, UnfetchableError, checked_address, is_allowed, sent

SECONDS: Final = 30.0  # for one part
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class ChangedError(Exception):
    """The document is another one than that of which the part before was."""


class Part(NamedTuple):
    """A part of a document.

    ``is_last``: whether the document ends with it.  ``validator``: what names the version of the document, its strong ETag or its
    Last-Modified; "" if the server gives neither.
    """

    body: bytes
    is_last: bool
    validator: str


async def fetch_part(
    network: Network, url: str, hosts: Hosts, accept: str, start: int, validator: str, is_enough: Callable[[bytearray], bool]
) -> Part:
    """The document at a URL from byte ``start`` on, until ``is_enough`` says so of what has come, or to its end.

    ``validator``: that of the part before.  Raises UnfetchableError, or ChangedError.
    """
    if not is_allowed(url, hosts):
        raise UnfetchableError
    headers = {"Accept": accept}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
    try:
        async with asyncio.timeout(SECONDS):
            async with sent(network, "GET", url, await checked_address(network, url, hosts), headers) as response:
                return await _read(response, start, validator, is_enough)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
        raise UnfetchableError from None


async def _read(response: httpx.Response, start: int, validator: str, is_enough: Callable[[bytearray], bool]) -> Part:
    current = _validator(response)
    if start and response.status_code == 416:
        return Part(b"", True, validator)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnfetchableError
    if start and validator and response.status_code in (200, 206) and current != validator:
        raise ChangedError
    if response.status_code == 206 and start:
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != start:
            raise UnfetchableError
        skipped, ends = 0, found[3] == "*" or int(found[2]) + 1 == int(found[3])
    elif response.status_code == 200:
        skipped, ends = start, True
    else:
        raise UnfetchableError
    body = bytearray()
    async for chunk in response.aiter_raw():
        rest = chunk[skipped:]
        skipped -= len(chunk) - len(rest)
        body += rest
        if is_enough(body):
            return Part(bytes(body), False, current)
    return Part(bytes(body), ends, current)


def _validator(response: httpx.Response) -> str:
    tag: str = response.headers.get("etag", "")
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("last-modified", ""))
