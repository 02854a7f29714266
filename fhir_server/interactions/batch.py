"""batch and transaction (http://hl7.org/fhir/R4/http.html#transaction).

Every entry goes through the routing table as a request of its own.  A transaction is one store transaction: all entries or none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, conditional_write, preconditions, write
from fhir_server.interactions.bundle_references import BundleEntry, require_distinct, resolve_by_search, with_entry_index
from fhir_server.interactions.bundle_request import entry_request, route_of
from fhir_server.interactions.messages import JSON, AuditContext, AuditedEntry, Request, Response
from fhir_server.interactions.routing import Route, match_route
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import BundleContext
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import server_base
from fhir_server.writing.references import has_readable_references
from fhir_server.writing.writer import rank

_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3, "HEAD": 3}


async def process_bundle(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST`` of a batch or transaction Bundle to the FHIR base, by an authenticated caller.  Raises Problem ``invalid``."""
    request.require_json()
    preconditions.require_only(request)
    bundle, texts = await service.parser.entries(request.body)
    request.body = b""  # of which the texts are copies
    if bundle is None or bundle.get("resourceType") != "Bundle" or bundle.get("type") not in ("batch", "transaction"):
        raise Problem("invalid", "POST to the FHIR base requires a Bundle of type batch or transaction.")
    if "entry" in bundle or len(texts) > service.max_entries:  # one that is no array stays among the other members
        raise Problem("invalid", f"Bundle.entry must be an array of at most {service.max_entries} entries.")
    entries = await budget.each(_outline, texts)
    if bundle["type"] == "batch":
        heads = [_head(value, index, request, service, batch=True) for index, value in enumerate(entries)]
        links = _links(entries, heads, service, batch=True)
        responses = []
        for index, (value, text, head) in enumerate(zip(entries, texts, heads, strict=True)):
            texts[index] = b""  # of which the body is a copy
            responses.append(await _batch_entry(value, text, index, head, service, audit, links))
        return _bundle_response("batch-response", responses)
    return _bundle_response("transaction-response", await transaction(entries, texts, request, service, audit))


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


@dataclass(frozen=True, slots=True)
class _Head:
    """The request of an entry without its body, as the audit log keeps it, and its route; or ``problem``: why it is refused."""

    request: Request | None
    route: Route | None = None
    problem: Problem | None = None


def _head(value: Any, index: int, request: Request, service: Service, *, batch: bool) -> _Head:
    """The head of an entry of a valid Bundle."""
    own = None
    try:
        own = entry_request(value["request"], request, server_base(service.base))
        return _Head(own, route_of(own, batch=batch))
    except Problem as problem:
        return _Head(own, problem=with_entry_index(problem, index))


async def _batch_entry(
    value: Any, text: bytes, index: int, head: _Head, service: Service, audit: AuditContext, links: BundleLinks
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
    value: Any, text: bytes, index: int, head: _Head, service: Service, audit: AuditContext, links: BundleLinks
) -> Response:
    if head.problem is not None or head.request is None or head.route is None:
        raise head.problem or Problem("invalid", "This request cannot be part of a batch.")
    request = head.request
    if request.method in ("POST", "PUT"):
        request = msgspec.structs.replace(request, body=_body(value, text, index, links))
    return _as_asked(request, await head.route.handle(request, service, audit))


def _as_asked(request: Request, response: Response) -> Response:
    """The response of an entry; one with HEAD has no body."""
    return msgspec.structs.replace(response, body=b"") if request.method == "HEAD" and response.status < 400 else response


async def transaction(
    entries: Sequence[Any], texts: list[bytes], request: Request, service: Service, audit: AuditContext
) -> list[Response]:
    """Process all entries in one store transaction; return responses in the order of the entries.

    Raises the Problem of the first entry that fails.  ``texts`` is emptied meanwhile.
    """
    heads = [_head(value, index, request, service, batch=False) for index, value in enumerate(entries)]
    audit.entries = [AuditedEntry(head.request, 0) for head in heads if head.request is not None]
    for head in heads:
        if head.problem is not None:
            raise head.problem
    links = _links(entries, heads, service, batch=False)
    parsed: list[BundleEntry] = []
    for index, (value, text, head) in enumerate(zip(entries, texts, heads, strict=True)):
        if head.request is not None:
            texts[index] = b""  # of which the draft is a copy
            parsed.append(await _parse_entry(value, text, index, head.request, service, links))
            await budget.give_way()
    require_distinct(entry for entry in parsed if not entry.is_conditional_change)

    async def process(context: WriteContext) -> list[Response]:
        entries = await resolve_by_search(parsed, links, context, service)
        require_distinct(entries)
        written = frozenset(f"{entry.draft.type}/{entry.id}" for entry in entries if entry.draft)
        await context.tx.prefetch(written)
        responses: dict[int, Response] = {}
        spending = budget.current()
        for entry in sorted(entries, key=lambda entry: (_ORDER[entry.request.method], _rank(entry))):
            if spending is not None:
                spending.remaining()
            try:
                response = await _process_entry(entry, context, service, BundleContext(entry.id, written, "".join(entry.matched[:1])))
            except Problem as problem:
                raise with_entry_index(problem, entry.index) from None
            responses[entry.index] = _as_asked(entry.request, response)
        await context.writer.relabel_pending()
        return [responses[index] for index in range(len(parsed))]

    return await service.write_with_view(request, audit, process)


async def _process_entry(entry: BundleEntry, context: WriteContext, service: Service, bundle: BundleContext) -> Response:
    match entry.request.method:
        case "DELETE" if entry.is_conditional_change:
            return await conditional_write.delete_in(context, entry.request, service, entry.matched)
        case "DELETE":
            return await write.delete_in(context, entry.request)
        case "POST" if entry.draft:
            return await write.create_in(context, entry.request, service, entry.draft, bundle)
        case "PUT" if entry.draft and entry.is_conditional_change:
            return await conditional_write.update_in(context, entry.request, service, entry.draft, bundle)
        case "PUT" if entry.draft:
            return await write.update_in(context, entry.request, service, entry.draft, bundle)
        case _:
            route = match_route(entry.request)
            if route.read_handler is None:
                raise Problem("invalid", "This request cannot be part of a transaction.")
            view = await service.view_in_transaction(context.view, context.tx)
            return await route.read_handler(view, entry.request, service)


def _links(entries: Sequence[Any], heads: Sequence[_Head], service: Service, *, batch: bool) -> BundleLinks:
    """The links of a batch or transaction: a create gets a new id, an update keeps the id in its URL or, if it is conditional, its own.

    Raises Problem ``invalid`` for two entries with one fullUrl.
    """
    links = BundleLinks(server_base(service.base))
    for entry, head in zip(entries, heads, strict=True):
        resource = entry.get("resource")
        if resource is None or head.request is None:
            continue
        full_url = entry.get("fullUrl", "")
        path, id = head.request.path, resource.get("id")
        if head.request.method == "POST" or (head.request.method == "PUT" and len(path) == 1 and id is None):
            new = None if batch else f"{resource.get('resourceType')}/{service.new_id()}"
            links.add(full_url, resource, new, keeps_id=False)
        elif head.route is not None and head.route.code == "update":
            links.add(full_url, resource, "/".join(path if len(path) > 1 else (*path, str(id))), keeps_id=True)
    return links


async def _parse_entry(value: Any, text: bytes, index: int, request: Request, service: Service, links: BundleLinks) -> BundleEntry:
    """An entry of a transaction, with the links in its resource resolved.  Raises Problem with the entry's index."""
    full_url = value.get("fullUrl", "")
    if request.method not in ("POST", "PUT"):
        return BundleEntry(index, full_url, request)
    body = _body(value, text, index, links)
    try:
        draft = await service.parser.draft(body, request.path[0], base=service.base, conditional=True)
    except Problem as problem:
        raise with_entry_index(problem, index) from None
    if request.method == "PUT" and len(request.path) > 1:
        if draft.id != request.path[1]:
            raise with_entry_index(Problem("invalid", "The resource's id differs from the id in request.url."), index)
        return BundleEntry(index, full_url, request, draft, request.path[1])
    if request.method == "PUT" and draft.id is not None:
        return BundleEntry(index, full_url, request, draft, draft.id)
    new = (links.target(full_url) or "").partition("/")[2] if full_url else ""
    return BundleEntry(index, full_url, request, draft, new or service.new_id())


def _body(value: Any, text: bytes, index: int, links: BundleLinks) -> bytes:
    """The JSON text of an entry's resource with its links resolved.  Raises Problem with the entry's index."""
    try:
        body = jsontext.members(text).get("resource", b"")
        if not body:
            raise Problem("invalid", "An entry with POST or PUT requires a resource.")
        if b"\\" in body and not has_readable_references(body, jsontext.parse(body)):
            body = jsontext.unescape(body)
        return links.rewrite(body, value.get("fullUrl", ""))
    except Problem as problem:
        raise with_entry_index(problem, index) from None


def _rank(entry: BundleEntry) -> int:
    return rank(entry.draft.type) if entry.draft else 0


def _bundle_response(type: str, responses: Sequence[Response]) -> Response:
    return Response(200, headers=((b"content-type", JSON),), parts=bundle_json.responses(type, map(_response_entry, responses)))


def _response_entry(response: Response) -> tuple[bytes, ...]:
    """The JSON text of an entry, in parts: bodies are not copied."""
    headers = dict(response.headers)
    members = [b'"status":"%d"' % response.status]
    if b"location" in headers:
        members.append(b'"location":"%s"' % headers[b"location"])
    if b"etag" in headers:
        members.append(b'"etag":%s' % json.dumps(headers[b"etag"].decode()).encode())
    if response.status >= 400 and response.body:
        members.append(b'"outcome":' + response.body)
        return (b'{"response":{%s}}' % b",".join(members),)
    if not response.body:
        return (b'{"response":{%s}}' % b",".join(members),)
    return b'{"resource":', response.body, b',"response":{%s}}' % b",".join(members)
