"""Sends responses of the FHIR API: large ones in pieces, and compressed if the client takes that.

Only JSON and FHIR's own formats are compressed: most other content of a Binary is compressed already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

from fhir_server.content_codings import COMPRESSED, SMALLEST, Gzip
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Response
from fhir_server.turns import Line

_PART: Final = 256 * 1024  # bytes of a body that are sent at once
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def send_response(response: Response, send: Send, line: Line, *, is_head: bool, gzip: Gzip | None, is_document: bool = False) -> None:
    """Send a response.

    ``is_head``      without its body
    ``gzip``         compresses it; None: the client does not take that
    ``is_document``  whether it is a public document, which is the same for all
    """
    if response.status in (204, 304):
        await send({"type": "http.response.start", "status": response.status, "headers": [*response.headers]})
        await send({"type": "http.response.body", "body": b""})
        return
    size = len(response.body) + sum(map(len, response.parts))
    coder = gzip if gzip is not None and _gains(response, size) else None
    headers = [*response.headers, *(((b"content-encoding", b"gzip"),) if coder else ())]
    if response.stream is None and (size <= _PART or is_document):
        body = b"".join((response.body, *response.parts)) if response.parts else response.body
        if coder:
            body = await coder.whole(body, keep=is_document)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if is_head else body})
        return
    if response.stream is None and coder is None:
        headers.append((b"content-length", b"%d" % size))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if not is_head:
        source = response.stream if response.stream is not None else _in_turns(response, line)
        if not await _send_pieces(coder.pieces(source) if coder else source, send):
            return
    await send({"type": "http.response.body", "body": b""})


def _gains(response: Response, size: int) -> bool:
    """Whether compression makes the response smaller, and nobody has coded it already."""
    headers = dict(response.headers)
    is_text = headers.get(b"content-type", b"").startswith(COMPRESSED)
    return is_text and b"content-encoding" not in headers and (response.stream is not None or size >= SMALLEST)


async def _in_turns(response: Response, line: Line) -> AsyncIterator[bytes]:
    """A large body in pieces, of which each takes a turn; what has been sent is forgotten."""
    parts, response.parts, response.body = [response.body, *response.parts], [], b""
    for piece in pieces(parts):
        await line.go_on()
        yield piece


async def _send_pieces(body: AsyncIterator[bytes], send: Send) -> bool:
    """Send a body in pieces, each when the client has taken most of the last one.

    Returns False after an error: the body then stays unterminated, which the client can detect.
    """
    try:
        async for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except Problem:
        return False
    return True


def pieces(parts: list[bytes]) -> Iterator[bytes]:
    """The text in pieces of about one size, whatever its parts are.  It forgets each part that it has given out."""
    together: list[bytes] = []
    size = 0
    for number, part in enumerate(parts):
        parts[number] = b""
        if together and size + len(part) > _PART:
            yield b"".join(together)
            together, size = [], 0
        if len(part) > _PART:
            yield from (part[start : start + _PART] for start in range(0, len(part), _PART))
        else:
            together.append(part)
            size += len(part)
    if together:
        yield b"".join(together)
