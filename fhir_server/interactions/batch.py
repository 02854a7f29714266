"""batch and transaction (http://hl7.org/fhir/R4/http.html#transaction).

Each entry goes through the very handlers a request of its own would, so there is no second way to the data.  A
transaction is one store transaction: every entry or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import bundle_json, write
from fhir_server.interactions.messages import JSON, Request, Response, parse_query
from fhir_server.interactions.routing import match_route
from fhir_server.interactions.service import Service
from fhir_server.resources.bundle_links import ABSOLUTE_LINK, replace_links
from fhir_server.store import Transaction
from fhir_server.writing import writer
from fhir_server.writing.writer import Draft, ResourceWriter

_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3, "HEAD": 3}


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One entry, read: its request, and where it stands in the Bundle."""

    place: int
    full_url: str
    request: Request
    draft: Draft | None = None
    id: str = ""


async def process_bundle(request: Request, service: Service) -> Response:
    """``POST`` to the base."""
    await service.authenticate(request)
    request.require_json()
    value = jsontext.parse(request.body)
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle" or value.get("type") not in ("batch", "transaction"):
        raise Problem("invalid", "This address takes a Bundle of type batch or transaction.")
    entries = value.get("entry", [])
    if not isinstance(entries, list) or len(entries) > service.max_entries:
        raise Problem("invalid", f"A Bundle's entries are an array of at most {service.max_entries}.")
    texts = jsontext.items(jsontext.members(request.body).get("entry", b"[]"))
    if value["type"] == "batch":
        answers = [
            await _batch_entry(value, text, place, request, service) for place, (value, text) in enumerate(zip(entries, texts, strict=True))
        ]
        return _response("batch-response", answers, service)
    return _response("transaction-response", await transaction(entries, texts, request, service), service)


async def _batch_entry(value: Any, text: bytes, place: int, request: Request, service: Service) -> Response:
    try:
        entry = _read(value, text, place, request, service, {})
    except Problem as problem:
        return Response(problem.status, problem.outcome())
    answer = await _process_batch(entry.request, service)
    request.entries.append(_for_audit(entry, answer.status))
    return answer


def _for_audit(entry: BundleEntry, status: int = 0) -> tuple[Request, int]:
    """An entry as the journal is told of it, which needs no body to be kept until then."""
    return msgspec.structs.replace(entry.request, body=b""), status


async def _process_batch(request: Request, service: Service) -> Response:
    """The answer to one entry of a batch, as to a request of its own."""
    try:
        row = match_route(request)
        if row.alone:
            raise Problem("invalid", "This request cannot be part of a batch.")
        return await row.handle(request, service)
    except Problem as problem:
        return Response(problem.status, problem.outcome())


async def transaction(entries: Sequence[Any], texts: Sequence[bytes], request: Request, service: Service) -> list[Response]:
    """All of it or nothing; answers in the order of the entries.  Raises the Problem of the first entry that fails."""
    addresses = _addresses(entries, service)
    read = [_read(value, text, place, request, service, addresses) for place, (value, text) in enumerate(zip(entries, texts, strict=True))]
    request.entries = [_for_audit(entry) for entry in read]
    _require_distinct(read)

    async def all_of_it(view: View, tx: Transaction, writing: ResourceWriter) -> list[Response]:
        entries = await _responses(read, view, service)
        known = frozenset(f"{entry.draft.type}/{entry.id}" for entry in entries if entry.draft)
        await tx.prefetch(known)
        answers: dict[int, Response] = {}
        for entry in sorted(entries, key=lambda entry: (_ORDER[entry.request.method], _rank(entry))):
            try:
                answers[entry.place] = await _apply(entry, view, tx, writing, service, known)
            except Problem as problem:
                raise _at(entry.place, problem) from None
        await writing.relabel_pending()
        return [answers[place] for place in range(len(read))]

    return await service.write_with_view(request, all_of_it)


async def _apply(
    entry: BundleEntry, view: View, tx: Transaction, writing: ResourceWriter, service: Service, known: frozenset[str]
) -> Response:
    match entry.request.method:
        case "DELETE":
            return await write.delete_in(view, tx, writing, entry.request)
        case "POST" if entry.draft:
            return await write.create_in(view, tx, writing, entry.request, service, entry.draft, entry.id, known)
        case "PUT" if entry.draft:
            return await write.update_in(view, tx, writing, entry.request, service, entry.draft, known)
        case _:
            row = match_route(entry.request)
            if row.read_handler is None:
                raise Problem("invalid", "This request cannot be part of a transaction.")
            return await row.read_handler(await service.view_in_transaction(view, tx), entry.request, service)


async def _responses(entries: Sequence[BundleEntry], view: View, service: Service) -> list[BundleEntry]:
    """The entries, with references to conditional creates that find a row in view leading to that row."""
    found: dict[bytes, bytes] = {}
    for entry in entries:
        condition = entry.request.headers.get("if-none-exist")
        if entry.draft and condition and entry.request.method == "POST":
            existing = await write.matching(view, entry.draft.type, condition, entry.request, service)
            if existing is not None:
                found[f'"{entry.draft.type}/{entry.id}"'.encode()] = f'"{existing.type}/{existing.id}"'.encode()
    return [_resolve_conditional_references(entry, found) for entry in entries] if found else list(entries)


def _resolve_conditional_references(entry: BundleEntry, found: Mapping[bytes, bytes]) -> BundleEntry:
    """The entry with promised addresses, which are random and stand nowhere by chance, replaced by those of rows that were found."""
    text = jsontext.join_members(entry.draft.parts) if entry.draft else b""
    led = text
    for promised, existing in found.items():
        led = led.replace(promised, existing)
    return replace(entry, draft=writer.parse_draft(led)) if led != text else entry


def _addresses(entries: Sequence[Any], service: Service) -> dict[str, str]:
    """fullUrl -> the ``Type/id`` it will have: for creates a fresh id, for updates the one they name."""
    found = {}
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        request = entry.get("request") if isinstance(entry, dict) else None
        if isinstance(resource, dict) and isinstance(request, dict) and isinstance(entry.get("fullUrl"), str):
            if request.get("method") == "POST":
                found[entry["fullUrl"]] = f"{resource.get('resourceType')}/{service.new_id()}"
            elif request.get("method") == "PUT":
                found[entry["fullUrl"]] = str(request.get("url"))
    return found


def _read(value: Any, text: bytes, place: int, request: Request, service: Service, addresses: Mapping[str, str]) -> BundleEntry:
    try:
        return _entry(value, text, place, request, service, addresses)
    except Problem as problem:
        raise _at(place, problem) from None


def _entry(value: Any, text: bytes, place: int, request: Request, service: Service, addresses: Mapping[str, str]) -> BundleEntry:
    asked = value.get("request") if isinstance(value, dict) else None
    if not isinstance(asked, dict) or not isinstance(asked.get("method"), str) or not isinstance(asked.get("url"), str):
        raise Problem("invalid", "Every entry needs a request with method and url.")
    if asked["method"] not in _ORDER:
        raise Problem("method", f"{asked['method']} is not supported in a Bundle.")
    url = urlsplit(asked["url"].removeprefix(service.base))
    path = tuple(part for part in url.path.split("/") if part)
    inner = msgspec.structs.replace(
        request, method=asked["method"], path=path, query=parse_query(url.query.encode("ascii", "replace")),
        headers=_headers(request, asked), body=b"", entries=[],
    )  # fmt: skip
    full_url = str(value.get("fullUrl", ""))
    if asked["method"] not in ("POST", "PUT"):
        return BundleEntry(place, full_url, inner)
    body = jsontext.members(text).get("resource", b"")
    if not body:
        raise Problem("invalid", "This entry needs a resource.")
    if not writer.has_readable_references(body, value.get("resource")):
        body = jsontext.unescape(body)
    inner.body = replace_links(body, addresses, ABSOLUTE_LINK) if addresses else body
    if len(path) == 2 and path[1] == "_search":
        raise Problem("invalid", "A search in a Bundle is a GET.")
    draft = writer.parse_draft(inner.body, path[0] if path else None, base=service.base)
    if asked["method"] == "PUT" and (len(path) != 2 or draft.id != path[1]):
        raise Problem("invalid", "The resource's id is not the one in the entry's url.")
    id = draft.id if asked["method"] == "PUT" else addresses.get(full_url, "/").partition("/")[2] or service.new_id()
    return BundleEntry(place, full_url, inner, draft, id or "")


def _headers(request: Request, asked: Mapping[str, Any]) -> dict[str, str]:
    headers = {name: request.headers[name] for name in ("authorization", "prefer", "content-type") if name in request.headers}
    for member, header in (("ifMatch", "if-match"), ("ifNoneExist", "if-none-exist"), ("ifNoneMatch", "if-none-match")):
        if isinstance(asked.get(member), str):
            headers[header] = asked[member]
    return headers


def _require_distinct(entries: Sequence[BundleEntry]) -> None:
    """No two entries of a transaction may write one resource."""
    written: set[str] = set()
    for entry in entries:
        if entry.request.method in ("PUT", "DELETE"):
            name = "/".join(entry.request.path)
            if name in written:
                raise Problem("invalid", f"Two entries of the transaction write {name}.")
            written.add(name)


def _rank(entry: BundleEntry) -> int:
    return writer.rank(entry.draft.type) if entry.draft else 0


def _at(place: int, problem: Problem) -> Problem:
    """The same problem, saying which entry."""
    issues = tuple(Issue(issue.code, f"Bundle.entry[{place}]: {issue.text}", issue.expression, issue.severity) for issue in problem.issues)
    return Problem(problem.kind, issues[0].text, issues)


def _response(kind: str, answers: Sequence[Response], service: Service) -> Response:
    return Response(200, bundle_json.responses(kind, (_answer(answer) for answer in answers)), ((b"content-type", JSON),))


def _answer(answer: Response) -> bytes:
    headers = dict(answer.headers)
    said = [b'"status":"%d"' % answer.status]
    if b"location" in headers:
        said.append(b'"location":"%s"' % headers[b"location"])
    if b"etag" in headers:
        said.append(b'"etag":%s' % json.dumps(headers[b"etag"].decode()).encode())
    if answer.status >= 400 and answer.body:
        said.append(b'"outcome":' + answer.body)
        return b'{"response":{%s}}' % b",".join(said)
    body = b'"resource":%s,' % answer.body if answer.body else b""
    return b'{%s"response":{%s}}' % (body, b",".join(said))
