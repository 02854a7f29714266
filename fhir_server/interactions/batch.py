"""batch and transaction (http://hl7.org/fhir/R4/http.html#transaction).

Each batch entry is handled like a request of its own.  A transaction is one store transaction: all entries or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, write
from fhir_server.interactions.bundle_references import BundleEntry, resolve_by_search, with_entry_index
from fhir_server.interactions.messages import JSON, AuditContext, AuditedEntry, Request, Response, parse_query
from fhir_server.interactions.routing import match_route
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import BundleContext
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.references import exact_target
from fhir_server.resources.server_base import ServerBase, server_base
from fhir_server.writing.references import has_readable_references
from fhir_server.writing.writer import rank

_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3, "HEAD": 3}


async def process_bundle(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST`` of a batch or transaction Bundle to the FHIR base, by an authenticated caller.  Raises Problem ``invalid``."""
    request.require_json()
    bundle, texts = await service.parser.entries(request.body)
    if bundle is None or bundle.get("resourceType") != "Bundle" or bundle.get("type") not in ("batch", "transaction"):
        raise Problem("invalid", "POST to the FHIR base requires a Bundle of type batch or transaction.")
    if "entry" in bundle or len(texts) > service.max_entries:  # one that is no array stays among the other members
        raise Problem("invalid", f"Bundle.entry must be an array of at most {service.max_entries} entries.")
    entries = await budget.each(jsontext.parse, texts)
    if bundle["type"] == "batch":
        links = _links(entries, service, batch=True)
        responses = [
            await _batch_entry(value, text, index, request, service, audit, links)
            for index, (value, text) in enumerate(zip(entries, texts, strict=True))
        ]
        return _bundle_response("batch-response", responses)
    return _bundle_response("transaction-response", await transaction(entries, texts, request, service, audit))


async def _batch_entry(
    value: Any, text: bytes, index: int, request: Request, service: Service, audit: AuditContext, links: BundleLinks
) -> Response:
    try:
        entry = await _parse_entry(value, text, index, request, service, links, batch=True)
    except Problem as problem:
        return Response(problem.status, problem.outcome())
    response = await _process_batch_request(entry.request, service, AuditContext(shown=audit.shown))
    audit.entries.append(_audited(entry, response.status))
    return response


def _audited(entry: BundleEntry, status: int = 0) -> AuditedEntry:
    """The entry for the audit log, without its body, which would stay in memory until the log is written."""
    return AuditedEntry(msgspec.structs.replace(entry.request, body=b""), status)


async def _process_batch_request(request: Request, service: Service, audit: AuditContext) -> Response:
    """Handle a batch entry as a request of its own, on the Bundle's budget.  The audit log records it with the Bundle."""
    try:
        if (spending := budget.current()) is not None:
            spending.remaining()
            await spending.pause()
        route = match_route(request)
        if not route.batchable:
            raise Problem("invalid", "This request cannot be part of a batch.")
        return await route.handle(request, service, audit)
    except Problem as problem:
        return Response(problem.status, problem.outcome())


async def transaction(
    entries: Sequence[Any], texts: Sequence[bytes], request: Request, service: Service, audit: AuditContext
) -> list[Response]:
    """Process all entries in one store transaction; return responses in the order of the entries.

    Raises the Problem of the first entry that fails.
    """
    links = _links(entries, service, batch=False)
    parsed: list[BundleEntry] = []
    for index, (value, text) in enumerate(zip(entries, texts, strict=True)):
        parsed.append(await _parse_entry(value, text, index, request, service, links, batch=False))
        await budget.give_way()
    audit.entries = [_audited(entry) for entry in parsed]
    _require_distinct(parsed)

    async def process(context: WriteContext) -> list[Response]:
        entries = await resolve_by_search(parsed, links, context.view, service)
        written = frozenset(f"{entry.draft.type}/{entry.id}" for entry in entries if entry.draft)
        await context.tx.prefetch(written)
        responses: dict[int, Response] = {}
        spending = budget.current()
        for entry in sorted(entries, key=lambda entry: (_ORDER[entry.request.method], _rank(entry))):
            if spending is not None:
                spending.remaining()
            try:
                responses[entry.index] = await _process_entry(entry, context, service, BundleContext(entry.id, written))
            except Problem as problem:
                raise with_entry_index(problem, entry.index) from None
        await context.writer.relabel_pending()
        return [responses[index] for index in range(len(parsed))]

    return await service.write_with_view(request, audit, process)


async def _process_entry(entry: BundleEntry, context: WriteContext, service: Service, bundle: BundleContext) -> Response:
    match entry.request.method:
        case "DELETE":
            return await write.delete_in(context, entry.request)
        case "POST" if entry.draft:
            return await write.create_in(context, entry.request, service, entry.draft, bundle)
        case "PUT" if entry.draft:
            return await write.update_in(context, entry.request, service, entry.draft, bundle)
        case _:
            route = match_route(entry.request)
            if route.read_handler is None:
                raise Problem("invalid", "This request cannot be part of a transaction.")
            view = await service.view_in_transaction(context.view, context.tx)
            return await route.read_handler(view, entry.request, service)


def _links(entries: Sequence[Any], service: Service, *, batch: bool) -> BundleLinks:
    """The links of a batch or transaction: a create gets a new id, an update keeps the id in its URL.

    Raises Problem ``invalid`` for two entries with one fullUrl.
    """
    links = BundleLinks(server_base(service.base))
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        request = entry.get("request") if isinstance(entry, dict) else None
        if not isinstance(resource, dict) or not isinstance(request, dict):
            continue
        full_url = entry["fullUrl"] if isinstance(entry.get("fullUrl"), str) else ""
        url = str(request.get("url"))
        if request.get("method") == "POST":
            new = None if batch else f"{resource.get('resourceType')}/{service.new_id()}"
            links.add(full_url, resource, new, keeps_id=False)
        elif request.get("method") == "PUT" and (target := exact_target(links.server.relative(url) or url)):
            links.add(full_url, resource, "/".join(target), keeps_id=True)
    return links


async def _parse_entry(
    value: Any, text: bytes, index: int, request: Request, service: Service, links: BundleLinks, *, batch: bool
) -> BundleEntry:
    """Parse an entry and resolve the links in its resource.  Raises Problem with the entry's index."""
    try:
        return await _parse(value, text, index, request, service, links, batch=batch)
    except Problem as problem:
        raise with_entry_index(problem, index) from None


async def _parse(
    value: Any, text: bytes, index: int, request: Request, service: Service, links: BundleLinks, *, batch: bool
) -> BundleEntry:
    member = value.get("request") if isinstance(value, dict) else None
    if not isinstance(member, dict) or not isinstance(member.get("method"), str) or not isinstance(member.get("url"), str):
        raise Problem("invalid", "Every entry requires a request with method and url.")
    method = member["method"]
    if method not in _ORDER:
        raise Problem("method", f"A Bundle does not support {method}.")
    url = urlsplit(_relative_url(member["url"], links.server))
    path = tuple(segment for segment in url.path.split("/") if segment)
    entry_request = msgspec.structs.replace(
        request, method=method, path=path, query=parse_query(url.query.encode("ascii", "replace")),
        headers=_headers(request, member), body=b"",
    )  # fmt: skip
    full_url = str(value.get("fullUrl", ""))
    if not batch:
        _require_transaction_route(entry_request)
    if method not in ("POST", "PUT"):
        return BundleEntry(index, full_url, entry_request)
    body = jsontext.members(text).get("resource", b"")
    if not body:
        raise Problem("invalid", "An entry with POST or PUT requires a resource.")
    if not has_readable_references(body, value.get("resource")):
        body = jsontext.unescape(body)
    entry_request.body = links.rewrite(body, full_url)
    if len(path) == 2 and path[1] == "_search":
        raise Problem("invalid", "A search in a Bundle requires GET.")
    draft = await service.parser.draft(entry_request.body, path[0] if path else None, base=service.base, conditional=not batch)
    if method == "PUT" and (len(path) != 2 or draft.id != path[1]):
        raise Problem("invalid", "The resource's id differs from the id in request.url.")
    new = "" if batch or not full_url else (links.target(full_url) or "").partition("/")[2]
    return BundleEntry(index, full_url, entry_request, draft, str(draft.id) if method == "PUT" else new or service.new_id())


def _relative_url(url: str, server: ServerBase) -> str:
    """The URL of an entry's request below the FHIR base.  Raises Problem ``invalid`` for a URL of another server."""
    relative = server.relative(url)
    if relative is None and "://" in url.partition("?")[0]:
        raise Problem("invalid", "The entry's request.url leads to another server.")
    return url if relative is None else relative


def _require_transaction_route(request: Request) -> None:
    """Require that a transaction can do what an entry's method and URL say.

    Raises Problem ``not_found``, ``method`` or ``invalid``, as a request of its own does.
    """
    route = match_route(request)
    if route.code not in ("create", "update", "delete") and (route.read_handler is None or request.method == "POST"):
        raise Problem("invalid", "This request cannot be part of a transaction.")
    if route.code in ("create", "update", "delete"):
        write.require_no_criteria(request)


def _headers(request: Request, member: Mapping[str, Any]) -> dict[str, str]:
    """The headers of an entry's request: those of the Bundle's request that apply, and those of its ``request`` element."""
    headers = {name: request.headers[name] for name in ("authorization", "prefer", "content-type") if name in request.headers}
    for element, header in (("ifMatch", "if-match"), ("ifNoneExist", "if-none-exist"), ("ifNoneMatch", "if-none-match")):
        if isinstance(member.get(element), str):
            headers[header] = member[element]
    return headers


def _require_distinct(entries: Sequence[BundleEntry]) -> None:
    """Require that no two entries of a transaction write the same resource.  Raises Problem ``invalid``."""
    written: set[str] = set()
    for entry in entries:
        if entry.request.method in ("PUT", "DELETE"):
            name = "/".join(entry.request.path)
            if name in written:
                raise Problem("invalid", f"Two entries of the transaction write {name}.")
            written.add(name)


def _rank(entry: BundleEntry) -> int:
    return rank(entry.draft.type) if entry.draft else 0


def _bundle_response(type: str, responses: Sequence[Response]) -> Response:
    return Response(200, bundle_json.responses(type, map(_response_entry, responses)), ((b"content-type", JSON),))


def _response_entry(response: Response) -> bytes:
    headers = dict(response.headers)
    members = [b'"status":"%d"' % response.status]
    if b"location" in headers:
        members.append(b'"location":"%s"' % headers[b"location"])
    if b"etag" in headers:
        members.append(b'"etag":%s' % json.dumps(headers[b"etag"].decode()).encode())
    if response.status >= 400 and response.body:
        members.append(b'"outcome":' + response.body)
        return b'{"response":{%s}}' % b",".join(members)
    body = b'"resource":%s,' % response.body if response.body else b""
    return b'{%s"response":{%s}}' % (body, b",".join(members))
