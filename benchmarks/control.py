"""The control: an ASGI application that returns stored responses, to measure the cost of the web server alone."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

Message = MutableMapping[str, Any]

Answers = dict[str, tuple[int, list[tuple[bytes, bytes]], bytes]]
"""``METHOD path?query``, or ``METHOD`` alone for all other paths, -> status, headers, body."""


def app() -> Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]:
    """Return the ASGI application for the responses in the file that BENCHMARKS_ANSWERS names."""
    answers = msgspec.msgpack.decode(Path(os.environ["BENCHMARKS_ANSWERS"]).read_bytes(), type=Answers)

    async def answer(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        method = scope["method"]
        more = method in ("POST", "PUT")
        while more:
            more = (await receive()).get("more_body", False)
        query = scope["query_string"].decode()
        answer_parts = answers.get(f"{method} {scope['path']}{'?' + query if query else ''}") or answers.get(method, (404, [], b""))
        status, headers, body = answer_parts
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer
