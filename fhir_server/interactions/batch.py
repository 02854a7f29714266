"""batch and transaction (http://hl7.org/fhir/R4/http.html#transaction).

Every entry goes through the routing table as a request of its own.  A transaction is one store transaction: all entries or none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, preconditions, provenance_header
from fhir_server.interactions.bundle_entries import EntryHead, body_of, heads_of, links_of, with_patch
from fhir_server.interactions.messages import JSON, AuditContext, AuditedEntry, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.interactions.transaction import as_asked, transaction
from fhir_server.resources.bundle_links import BundleLinks


async def process_bundle(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST`` of a batch or transaction Bundle to the FHIR base, by an authenticated caller.  Raises Problem ``invalid``."""
    request.require_json()
    preconditions.require_only(request)
    bundle, texts = await service.parser.entries(request.take_body())
    if bundle is None or bundle.get("resourceType") != "Bundle" or bundle.get("type") not in ("batch", "transaction"):
        raise Problem("invalid", "POST to the FHIR base requires a Bundle of type batch or transaction.")
    if "entry" in bundle or len(texts) > service.max_entries:  # one that is no array stays among the other members
        raise Problem("invalid", f"Bundle.entry must be an array of at most {service.max_entries} entries.")
    entries = await budget.each(_outline, texts)
    if bundle["type"] == "batch":
        provenance_header.require_none(request)
        heads = await heads_of(entries, request, service, batch=True)
        links = await links_of(entries, heads, service, batch=True)
        responses = []
        for index, (value, text, head) in enumerate(zip(entries, texts, heads, strict=True)):
            texts[index] = b""  # of which the body is a copy
            responses.append(await _batch_entry(value, text, index, head, service, audit, links))
        return await _bundle_response("batch-response", responses)
    return await _bundle_response("transaction-response", await transaction(entries, texts, request, service, audit))


class _ResourceOutline(msgspec.Struct, rename={"type": "resourceType"}):
    type: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()
    meta: msgspec.Raw = msgspec.Raw()


class _EntryOutline(msgspec.Struct, rename={"full_url": "fullUrl"}):
    full_url: msgspec.Raw = msgspec.Raw()
    request: msgspec.Raw = msgspec.Raw()
    resource: _ResourceOutline | None = None


_decode_outline = msgspec.json.Decoder(_EntryOutline).decode


def _outline(text: bytes) -> dict[str, Any]:
    """An entry of a valid Bundle without most of its resource, whose value would take many times the memory of its text."""
    entry = _decode_outline(text)
    value: dict[str, Any] = _values(fullUrl=entry.full_url, request=entry.request)
    if (resource := entry.resource) is not None:
        value["resource"] = _values(resourceType=resource.type, id=resource.id, meta=resource.meta)
    return value


def _values(**texts: msgspec.Raw) -> dict[str, Any]:
    return {name: jsontext.parse(bytes(text)) for name, text in texts.items() if bytes(text)}


async def _batch_entry(
    value: Any, text: bytes, index: int, head: EntryHead, service: Service, audit: AuditContext, links: BundleLinks
) -> Response:
    """Handle a batch entry as a request of its own, on the Bundle's budget.  The audit log records it with the Bundle."""
    try:
        if (spending := budget.current()) is not None:
            spending.remaining()
            await spending.pause()
        of_entry = AuditContext(shown=audit.shown, store_lines=audit.store_lines)
        response = await _process_batch_request(value, text, index, head, service, of_entry, links)
    except Problem as problem:
        response = Response(problem.status, problem.outcome())
        problem.let_go()
    if head.request is not None:
        audit.entries.append(AuditedEntry(head.request, response.status))
    return response


async def _process_batch_request(
    value: Any, text: bytes, index: int, head: EntryHead, service: Service, audit: AuditContext, links: BundleLinks
) -> Response:
    if head.problem is not None or head.request is None or head.route is None:
        raise head.problem or Problem("invalid", "This request cannot be part of a batch.")
    request = head.request
    if request.method in ("POST", "PUT"):
        request = msgspec.structs.replace(request, body=await body_of(value, text, index, service, links))
    elif request.method == "PATCH":
        request = await with_patch(request, await body_of(value, text, index, service, links), value.get("fullUrl", ""), links, service)
    return as_asked(request, await head.route.handle(request, service, audit))


async def _bundle_response(type: str, responses: Sequence[Response]) -> Response:
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
