"""Imports that the twin servers get: files whose lines refer to rows, hidden ones too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from urllib.parse import parse_qsl, urlencode

import httpx

from fhir_server.interactions.service import Sources
from fhir_server.web.public_fetch import Hosts, Network
from tests.noninterference.content_requests import ContentRequests
from tests.noninterference.paired_server import Ask
from tests.noninterference.write_requests import JSON_TYPE, text_of

_HOST = "https://files.example"
_LINES = 12


class _Files(httpx.AsyncBaseTransport):
    """A server whose files follow from their URLs: an Observation for each ``focus`` in the query."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        names = [value for _, value in parse_qsl(request.url.query.decode())]
        return httpx.Response(200, stream=_Lines(names))


class _Lines(httpx.AsyncByteStream):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for name in self._names:
            yield _line(name)


def _line(name: str) -> bytes:
    row = {"resourceType": "Observation", "status": "final", "code": {"text": "imported"}, "focus": [{"reference": name}]}
    return json.dumps(row).encode() + b"\n"


async def _resolved(host: str, port: int) -> Sequence[str]:
    return ("93.184.216.34",)


SOURCES = Sources(Network(_resolved, _Files()), Hosts.PUBLIC)


class ImportRequests(ContentRequests):
    """Imports of resources that refer to hidden rows, each of which is refused as if there were no such row."""

    def steady_imports(self) -> list[Ask]:
        """Return the imports that are sent in every case; most callers may not import."""
        url = f"{_HOST}/lines?{urlencode([('focus', name) for name in self._probes.hidden_ids[:_LINES]])}"
        part = [{"name": "type", "valueCode": "Observation"}, {"name": "url", "valueUri": url}]
        body = text_of({"resourceType": "Parameters", "parameter": [{"name": "input", "part": part}]})
        return [Ask("import", "POST", "$import", "", (JSON_TYPE, ("prefer", "respond-async")), body)]
