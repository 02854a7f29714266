"""The entries of a batch or transaction as requests: their heads, their resources and patches, the links between them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.interactions import patch, profile_claims
from fhir_server.interactions.bundle_references import BundleEntry, with_entry_index
from fhir_server.interactions.bundle_request import entry_request, route_of
from fhir_server.interactions.messages import XML_TYPES, Request
from fhir_server.interactions.routing import Route
from fhir_server.interactions.service import Service
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import server_base
from fhir_server.writing.references import has_readable_references

_LINK_ELEMENT = re.compile(r"""(<(?:[\w.\-]+:)?reference\b[^<>]*?\bvalue\s*=\s*["'])([^"'<>]*)(["'])""")
_TAG_AND_TEXT = re.compile(r"(<[^<>]*>)([^<>]*)")
_SELECTS_LINK = re.compile(r"""\bsel\s*=\s*["'][^"'<>]*reference(?:/@value)?["']""")


@dataclass(frozen=True, slots=True)
class EntryHead:
    """The request of an entry without its body, as the audit log keeps it, and its route; or ``problem``: why it is refused."""

    request: Request | None
    route: Route | None = None
    problem: Problem | None = None


def head_of(value: Any, index: int, request: Request, service: Service, *, batch: bool) -> EntryHead:
    """The head of an entry of a valid Bundle."""
    own = None
    try:
        own = entry_request(value["request"], request, server_base(service.base))
        return EntryHead(own, route_of(own, batch=batch))
    except Problem as problem:
        return EntryHead(own, problem=with_entry_index(problem, index))


async def heads_of(entries: Sequence[Any], request: Request, service: Service, *, batch: bool) -> list[EntryHead]:
    """The heads of all entries."""
    return await budget.each(lambda one: head_of(one[1], one[0], request, service, batch=batch), [*enumerate(entries)])


async def links_of(entries: Sequence[Any], heads: Sequence[EntryHead], service: Service, *, batch: bool) -> BundleLinks:
    """The links of a batch or transaction: a create gets a new id, an update keeps the id in its URL or, if it is conditional, its own.

    Raises Problem ``invalid`` for two entries with one fullUrl.
    """
    links = BundleLinks(server_base(service.base))

    def add(pair: tuple[Any, EntryHead]) -> None:
        entry, head = pair
        resource = entry.get("resource")
        if resource is None or head.request is None or (head.route is not None and head.route.body == "question"):
            return
        full_url = entry.get("fullUrl", "")
        path, id = head.request.path, resource.get("id")
        if head.request.method == "POST" or (head.request.method == "PUT" and len(path) == 1 and id is None):
            new = None if batch else f"{resource.get('resourceType')}/{service.new_id()}"
            links.add(full_url, resource, new, keeps_id=False)
        elif head.route is not None and head.route.code == "patch":
            known = "/".join(path) if len(path) > 1 else None if batch else f"{path[0]}/{service.new_id()}"
            links.add(full_url, resource, known, keeps_id=True)
        elif head.route is not None and head.route.code == "update":
            links.add(full_url, resource, "/".join(path if len(path) > 1 else (*path, str(id))), keeps_id=True)

    await budget.each(add, [*zip(entries, heads, strict=True)])
    return links


async def parse_entry(value: Any, text: bytes, index: int, request: Request, service: Service, links: BundleLinks) -> BundleEntry:
    """An entry of a transaction, with the links in its resource resolved.  Raises Problem with the entry's index."""
    full_url = value.get("fullUrl", "")
    if request.method not in ("POST", "PUT", "PATCH"):
        return BundleEntry(index, full_url, request)
    body = await body_of(value, text, index, service, links)
    new = (links.target(full_url) or "").partition("/")[2] if full_url else ""
    if request.method == "PATCH":
        try:
            request = await with_patch(request, body, full_url, links, service)
            await patch.require_valid(request.headers["content-type"], request.body, service)
            patch.read(request.headers["content-type"], request.body, request.path[0])
        except Problem as problem:
            raise with_entry_index(problem, index) from None
        id = request.path[1] if len(request.path) > 1 else new or service.new_id()
        return BundleEntry(index, full_url, request, id=id, patch=request.body)
    try:
        draft = await service.parser.draft(body, request.path[0], base=service.base, conditional=True)
        await profile_claims.checked(draft, service.profiles)
    except Problem as problem:
        raise with_entry_index(problem, index) from None
    if request.method == "PUT" and len(request.path) > 1:
        if draft.id != request.path[1]:
            raise with_entry_index(Problem("invalid", "The resource's id differs from the id in request.url."), index)
        return BundleEntry(index, full_url, request, draft, request.path[1])
    if request.method == "PUT" and draft.id is not None:
        return BundleEntry(index, full_url, request, draft, draft.id)
    return BundleEntry(index, full_url, request, draft, new or service.new_id())


async def body_of(value: Any, text: bytes, index: int, service: Service, links: BundleLinks) -> bytes:
    """The JSON text of an entry's resource with its links resolved.  Raises Problem with the entry's index."""
    try:
        return await service.parser.linked(text, value.get("fullUrl", ""), links)
    except Problem as problem:
        raise with_entry_index(problem, index) from None


async def with_patch(request: Request, body: bytes, full_url: str, links: BundleLinks, service: Service) -> Request:
    """The request of an entry with the patch in its resource as body, with its links resolved.  Raises Problem ``invalid``."""
    content_type, text = patch.of_entry(jsontext.parse(body), body)
    if content_type == patch.JSON_PATCH:
        text = _with_links(text, full_url, links)
    elif content_type == patch.XML_PATCH:
        text = _with_links_in_xml(text, full_url, links)
    elif content_type in XML_TYPES:
        content_type, text = patch.FHIR_JSON, links.rewrite(await service.parser.from_xml(text), full_url)
    return msgspec.structs.replace(request, headers={**request.headers, "content-type": content_type}, body=text)


def _with_links(text: bytes, full_url: str, links: BundleLinks) -> bytes:
    """A JSON Patch with the references in its values resolved."""
    value, text = jsontext.parse_compact(text)
    if not isinstance(value, list):
        return text
    if not has_readable_references(text, value):
        text = jsontext.unescape(text)
    changed: dict[jsontext.Path, bytes] = {}
    for number, item in enumerate(value):
        link = item.get("value") if isinstance(item, dict) and str(item.get("path", "")).endswith("/reference") else None
        if isinstance(link, str) and (new := links.resolve(link, full_url)) is not None:
            changed[number, "value"] = json.dumps(new, ensure_ascii=False).encode()
    return jsontext.replace_values(links.rewrite(text, full_url), changed)


def _with_links_in_xml(text: bytes, full_url: str, links: BundleLinks) -> bytes:
    """An XML Patch with its references resolved: those in elements, and those that are the text of an operation on one."""

    def resolved(link: str) -> str:
        new = links.resolve(html.unescape(link).strip(), full_url)
        return link if new is None else html.escape(new)

    def element(match: re.Match[str]) -> str:
        return f"{match[1]}{resolved(match[2])}{match[3]}"

    def operation(match: re.Match[str]) -> str:
        return match[1] + (resolved(match[2]) if match[2] and _SELECTS_LINK.search(match[1]) else match[2])

    try:
        found = text.decode()
    except UnicodeDecodeError:
        raise Problem("invalid", "An XML Patch is in UTF-8.") from None
    return _TAG_AND_TEXT.sub(operation, _LINK_ELEMENT.sub(element, found)).encode()
