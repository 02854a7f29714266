"""Responses as the entries of a Bundle (http://hl7.org/fhir/R4/bundle.html#transaction-response)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fhir_server import budget
from fhir_server.interactions import bundle_json
from fhir_server.interactions.messages import JSON, Response


async def of(type: str, responses: Sequence[Response]) -> Response:
    """A Bundle of ``type`` batch-response or transaction-response with these responses as its entries."""
    parts = bundle_json.responses(type, await budget.each(_response_entry, responses))
    return Response(200, headers=((b"content-type", JSON),), parts=parts)


def _response_entry(response: Response) -> tuple[bytes, ...]:
    """The JSON text of an entry, in parts: bodies are not copied."""
    headers = dict(response.headers)
    members = [b'"status":"%d"' % response.status]
    if b"location" in headers:
        members.append(b'"location":"%s"' % headers[b"location"])
    if b"etag" in headers:
        members.append(b'"etag":%s' % json.dumps(headers[b"etag"].decode()).encode())
    body = (response.body, *response.parts)
    if response.status >= 400 and response.body:
        members.append(b'"outcome":' + response.body)
        return (b'{"response":{%s}}' % b",".join(members),)
    if not any(body):
        return (b'{"response":{%s}}' % b",".join(members),)
    return b'{"resource":', *body, b',"response":{%s}}' % b",".join(members)
