"""batch and transaction (http://hl7.org/fhir/R4/http.html#transaction).

Every entry goes through the routing table as a request of its own.  A transaction is one store transaction: all entries or none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.interactions import preconditions, provenance_header, response_bundle
from fhir_server.interactions.bundle_entries import EntryHead, body_of, heads_of, links_of, with_patch
from fhir_server.interactions.messages import AuditContext, AuditedEntry, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.interactions.transaction import as_asked, transaction
from fhir_server.resources.bundle_links import BundleLinks

_SMALL = 64 * 1024  # bytes of a batch that may be answered later


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
        return await response_bundle.of("batch-response", responses)
    return await response_bundle.of("transaction-response", await transaction(entries, texts, request, service, audit))


def is_of_reads(body: bytes) -> bool:
    """Whether a small body is a batch that writes nothing."""
    try:
        value = msgspec.json.decode(body, type=_BundleOutline) if len(body) <= _SMALL else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return value is not None and value.type == "batch" and all(entry.request.method == "GET" for entry in value.entry)


class _RequestOutline(msgspec.Struct):
    method: str


class _ReadOutline(msgspec.Struct):
    request: _RequestOutline


class _BundleOutline(msgspec.Struct):
    type: str
    entry: list[_ReadOutline] = []


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
