"""Files of other systems for imports, and a transport that serves them as their servers would."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from fhir_server import app
from fhir_server.interactions.service import Sources
from fhir_server.web.public_fetch import Hosts, Network
from tests.served import Answer, Served

HOST = "https://files.example"
ADDRESS = "93.184.216.34"
ASYNC = {"prefer": "respond-async"}


@dataclass
class Files(httpx.AsyncBaseTransport):
    """Files by name.  ``ranges``: whether parts are served.  ``asked``: the headers of each request."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    down: int = 0
    asked: list[httpx.Headers] = field(default_factory=list)
    sent: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host == ADDRESS, "a checked address"
        self.asked.append(request.headers)
        if self.down:
            self.down -= 1
            raise httpx.ConnectError("down")
        text = self.files.get(request.url.path.lstrip("/"))
        if text is None:
            return httpx.Response(404)
        headers = {"etag": f'"{hash(text)}"'} if self.validators else {}
        named = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "")) if self.ranges else None
        current = request.headers.get("if-range", headers.get("etag")) == headers.get("etag")
        if named is None or not current:
            return httpx.Response(200, headers=headers, stream=_Parts(self, text))
        start = int(named[1])
        if start >= len(text):
            return httpx.Response(416, headers=headers)
        headers |= {"content-range": f"bytes {start}-{len(text) - 1}/{len(text)}"}
        return httpx.Response(206, headers=headers, stream=_Parts(self, text[start:]))


class _Parts(httpx.AsyncByteStream):
    def __init__(self, files: Files, text: bytes) -> None:
        self._files, self._text = files, text

    async def __aiter__(self) -> Any:
        for start in range(0, len(self._text), 1000):
            part = self._text[start : start + 1000]
            self._files.sent += len(part)
            yield part


async def resolved(host: str, port: int) -> Sequence[str]:
    return {"files.example": [ADDRESS], "inside.example": ["10.0.0.7"]}[host]


def reaching(server: Served, files: Files) -> Served:
    """The server with a network that has these files, which it reaches as it would in production."""
    sources = Sources(Network(resolved, files), Hosts.PUBLIC)
    server.parts = replace(server.parts, service=replace(server.parts.service, sources=sources))
    server.api = app.fhir_api(server.parts)
    return server


def ndjson(*resources: Any) -> bytes:
    return b"".join(one + b"\n" if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in resources)


def parameters(*inputs: tuple[str, str], **others: Any) -> dict[str, Any]:
    """The body of a kick-off; ``inputs`` are (type, url)."""
    given = [{"name": "input", "part": [{"name": "type", "valueCode": type}, {"name": "url", "valueUri": url}]} for type, url in inputs]
    return {"resourceType": "Parameters", "parameter": [*given, *({"name": name} | value for name, value in others.items())]}


def started(server: Served, token: str, *inputs: tuple[str, str]) -> str:
    answer = server.request(token, "POST", "$import", body=parameters(*inputs), headers=ASYNC)
    assert answer.status == 202, answer.body
    return answer.headers["content-location"]


def refusals(server: Served, token: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The OperationOutcomes of the files of errors."""
    found: list[dict[str, Any]] = []
    for error in result["error"]:
        answer: Answer = server.get(token, error["url"], accept="application/fhir+ndjson")
        assert answer.status == 200 and answer.headers["content-type"] == "application/fhir+ndjson"
        lines = [json.loads(line) for line in answer.body.decode().splitlines()]
        assert len(lines) == error["count"] and {line["resourceType"] for line in lines} == {"OperationOutcome"}
        found += lines
    return found
