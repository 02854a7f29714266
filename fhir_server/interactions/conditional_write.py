"""Conditional update and delete (http://hl7.org/fhir/R4/http.html#cond-update, #3.1.0.7.1).

The criteria match what the caller sees, within the transaction of the write.  A hidden match counts as absent, and so does a hidden
resource with the id in the body.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import criteria, preconditions, provenance_header, write, write_rights
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import BundleContext
from fhir_server.writing.draft import Draft


async def update(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PUT Type?criteria``: updates the one match.  Without a match it creates: with the id in the body, as an update does, or a new one.

    Raises Problem ``precondition`` for several matches.
    """
    request.require_json()
    criteria.of_url(request)
    draft = await write.received(request, service, audit)
    return await provenance_header.write(request, service, audit, lambda context: update_in(context, request, service, draft))


async def update_in(
    context: WriteContext, request: Request, service: Service, draft: Draft, bundle: BundleContext | None = None
) -> Response:
    """Update the match, or create, within a transaction.  ``bundle`` is set for an entry of a transaction Bundle.

    Raises Problem ``conflict`` for criteria that do not match the visible resource with the id in the body, ``invalid`` for another
    match than before the transaction, and what an update or create raises.
    """
    view, type = context.view, draft.type
    write_rights.admit_conditional_update(view.permissions, type)
    existing = await match(context, request, service, bundle)
    if existing is not None:
        named = draft_of_match(draft, existing)
        return await write.update_in(context, about(request, type, existing.id), service, named, bundle)
    if draft.id is not None:
        if await view.read_for_write(type, draft.id, "u") is not None:
            raise Problem("conflict", "The criteria do not match the resource that has the id in the body.")
        return await write.update_in(context, about(request, type, draft.id), service, draft, bundle)
    return await write.create_in(context, preconditions.kept_by_creation(request), service, draft, bundle)


async def match(context: WriteContext, request: Request, service: Service, bundle: BundleContext | None) -> VisibleVersion | None:
    """The one match of a conditional update or patch.

    Raises Problem ``precondition`` for several, ``invalid`` for another match than before the transaction.
    """
    existing = await criteria.matching(context.view, request.path[0], criteria.of_url(request), request.now, service)
    if bundle is not None and bundle.matched != name_of(existing):
        raise Problem("invalid", "Another entry of the transaction writes what the criteria of this entry match.")
    return existing


def draft_of_match(draft: Draft, existing: VisibleVersion) -> Draft:
    """The draft as the next version of the resource that the criteria match.  Raises Problem ``invalid`` if it has another id."""
    if draft.id not in (None, existing.id):
        raise Problem("invalid", "The resource's id is not that of the resource that the criteria match.")
    return draft.with_id(existing.id)


async def delete(request: Request, service: Service, audit: AuditContext) -> Response:
    """``DELETE Type?criteria``: deletes what matches, at most as many as the server's setting allows; 204, also without a match.

    Raises Problem ``precondition`` for more matches.
    """

    async def job(context: WriteContext) -> Response:
        write_rights.require_may_delete(context.view.permissions, request.path[0], request)
        criteria.of_url(request)
        provenance_header.require_none(request)
        return await delete_in(context, request, service)

    return await service.write_with_view(request, audit, job)


async def delete_in(context: WriteContext, request: Request, service: Service, names: Sequence[str] | None = None) -> Response:
    """Delete the matches within a transaction.  ``names``: the matches (``Type/id``), if they are known already."""
    type = request.path[0]
    write_rights.require_may_delete(context.view.permissions, type, request)
    if names is None:
        names = await matches_for_deletion(context, request, service)
    if len(names) != 1:
        preconditions.require_no_version(request, matches=len(names))
    responses = [await write.delete_in(context, about(request, type, name.partition("/")[2])) for name in names]
    return responses[0] if len(responses) == 1 else Response(204)


async def matches_for_deletion(context: WriteContext, request: Request, service: Service) -> list[str]:
    """``Type/id`` of what a conditional delete deletes.  Raises Problem ``precondition`` for more than the setting allows."""
    type, limit = request.path[0], service.max_conditional_deletes
    found = await criteria.all_matching(context.view, type, criteria.of_url(request), request.now, service, limit)
    return [name_of(version) for version in found]


def name_of(version: VisibleVersion | None) -> str:
    """``Type/id``, or "" for None."""
    return f"{version.type}/{version.id}" if version is not None else ""


def about(request: Request, type: str, id: str) -> Request:
    """The same request about one resource."""
    return msgspec.structs.replace(request, path=(type, id), query=())
