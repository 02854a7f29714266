"""transaction (http://hl7.org/fhir/R4/http.html#trules): all entries in one store transaction, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.interactions import conditional_write, patch, provenance_header, write
from fhir_server.interactions.bundle_entries import heads_of, links_of, parse_entry
from fhir_server.interactions.bundle_references import BundleEntry, require_distinct, resolve_by_search, with_entry_index
from fhir_server.interactions.messages import AuditContext, AuditedEntry, Request, Response
from fhir_server.interactions.patch import PatchedDrafts
from fhir_server.interactions.routing import match_route
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import BundleContext
from fhir_server.writing.writer import rank

_REFERENCES_PER_SECOND: Final = 25_000  # that are stored, at most: each is looked up, indexed, and a source of labels
_ORDER: Final = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}


async def transaction(
    entries: Sequence[Any], texts: list[bytes], request: Request, service: Service, audit: AuditContext
) -> list[Response]:
    """Process all entries in one store transaction; return responses in the order of the entries.

    Raises the Problem of the first entry that fails.  ``texts`` is emptied meanwhile.
    """
    heads = await heads_of(entries, request, service, batch=False)
    await _require_affordable(texts)
    audit.entries = [AuditedEntry(head.request, 0) for head in heads if head.request is not None]
    for head in heads:
        if head.problem is not None:
            raise head.problem
    links = await links_of(entries, heads, service, batch=False)
    parsed: list[BundleEntry] = []
    for index, (value, text, head) in enumerate(zip(entries, texts, heads, strict=True)):
        if head.request is not None:
            texts[index] = b""  # of which the draft is a copy
            parsed.append(await parse_entry(value, text, index, head.request, service, links))
            await budget.give_way()
    require_distinct(entry for entry in parsed if not entry.is_conditional_change)

    drafts, provenance = PatchedDrafts(), await provenance_header.received(request, service)

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
                response = await _process_entry(
                    entry, context, service, drafts, BundleContext(entry.id, written, "".join(entry.matched[:1]))
                )
            except Problem as problem:
                raise with_entry_index(problem, entry.index) from None
            responses[entry.index] = as_asked(entry.request, response)
        answers = [(entry.request.method, responses[entry.index]) for entry in entries]
        await provenance_header.record(context, service, provenance, answers)
        await context.writer.relabel_pending()
        return [responses[index] for index in range(len(parsed))]

    changes = sum(bool(entry.patch) for entry in parsed)
    return await drafts.settled(lambda: service.write_with_view(request, audit, process), service, changes)


async def _process_entry(
    entry: BundleEntry, context: WriteContext, service: Service, drafts: PatchedDrafts, bundle: BundleContext
) -> Response:
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
        case "PATCH":
            applies = patch.read(entry.request.headers["content-type"], entry.patch, entry.request.path[0])
            patch_in = patch.conditional_patch_in if entry.is_conditional_change else patch.patch_in
            return await patch_in(context, entry.request, service, applies, drafts, bundle)
        case _:
            route = match_route(entry.request, in_bundle=True)
            if route.read_handler is None:
                raise Problem("invalid", "This request cannot be part of a transaction.")
            view = await service.view_in_transaction(context.view, context.tx)
            return await route.read_handler(view, entry.request, service)


async def _require_affordable(texts: Sequence[bytes]) -> None:
    """Require that the references of a transaction can be stored in the time that remains: all of it would be in vain otherwise.

    Raises Problem ``too_costly``.
    """
    spending = budget.current()
    if spending is None:
        return
    count = sum(await budget.each(lambda text: text.count(b'"reference"'), texts))
    if count > spending.remaining() * _REFERENCES_PER_SECOND:
        raise Problem("too_costly", f"The transaction has {count} references, which take more than its seconds of work. Send less at once.")


def _rank(entry: BundleEntry) -> int:
    return rank(entry.draft.type) if entry.draft else 0


def as_asked(request: Request, response: Response) -> Response:
    """The response of an entry; one with HEAD has no body."""
    return msgspec.structs.replace(response, body=b"", parts=[]) if request.method == "HEAD" and response.status < 400 else response
