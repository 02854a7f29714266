"""create, update and delete (http://hl7.org/fhir/R4/http.html#create).

A write uses the caller's View of its own transaction.  The current version, the references' targets and the matches of a
condition count only as far as the caller can see them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fhir_server.access.view import not_found
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import (
    app_state,
    creation,
    criteria,
    meta_rights,
    preconditions,
    profile_claims,
    provenance_header,
    read,
    statements,
    write_rights,
)
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response, version_headers
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.packages import mark
from fhir_server.store import Row
from fhir_server.writing import hidden_elements
from fhir_server.writing.draft import Draft
from fhir_server.writing.parser import is_large


@dataclass(frozen=True, slots=True)
class BundleContext:
    """What a write in a transaction Bundle needs from the Bundle.

    ``id``       the id of the entry's resource, to which other entries' references already lead
    ``written``  ``Type/id`` of all resources that the Bundle writes: references to them are valid
    ``matched``  ``Type/id`` of the resource that the entry's criteria matched before the transaction, or ""
    """

    id: str
    written: frozenset[str]
    matched: str = ""


class CurrentVersion(NamedTuple):
    """The current version before a write: as the caller sees it (None: hidden, deleted or absent), and as stored."""

    visible: VisibleVersion | None
    stored: Row | None


async def create(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST Type``, also with ``If-None-Exist``.  The server chooses the id.

    Raises Problem ``invalid`` for search parameters in the URL: a client that sends them there expects a conditional
    create and would store duplicates.
    """
    request.require_json()
    criteria.require_none(request)
    draft = await received(request, service, audit)
    return await provenance_header.write(request, service, audit, lambda context: create_in(context, request, service, draft))


async def update(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PUT Type/id``.  A trusted caller can also create a resource with an id of its choice."""
    request.require_json()
    criteria.require_none(request)
    draft = await received(request, service, audit)
    if draft.id != request.path[1]:
        raise Problem("invalid", "The resource's id differs from the id in the URL.")
    return await provenance_header.write(request, service, audit, lambda context: update_in(context, request, service, draft))


async def received(request: Request, service: Service, audit: AuditContext) -> Draft:
    """The resource in the body of a create or update.  Raises Problem ``invalid``, ``unprocessable`` or ``too_large``."""
    audit.just_admitted = audit.just_admitted and not is_large(request.body)
    draft = await service.parser.draft(request.body, request.path[0], base=service.base)
    audit.just_admitted = audit.just_admitted and not service.profiles.must_check(draft.type, draft.value)
    return await profile_claims.checked(draft, service.profiles)


async def delete(request: Request, service: Service, audit: AuditContext) -> Response:
    """``DELETE Type/id``: 204, also for a resource that does not exist."""

    async def job(context: WriteContext) -> Response:
        criteria.require_none(request)
        provenance_header.require_none(request)
        return await delete_in(context, request)

    return await service.write_with_view(request, audit, job)


async def create_in(
    context: WriteContext, request: Request, service: Service, draft: Draft, bundle: BundleContext | None = None
) -> Response:
    """Create within a transaction.  ``bundle`` is set for an entry of a transaction Bundle.

    Raises Problem ``forbidden``, ``unprocessable``, ``too_large`` or ``precondition``.
    """
    draft = creation.admitted(context, draft, service)
    preconditions.require_only(request, preconditions.IF_NONE_EXIST)
    if (condition := request.headers.get("if-none-exist")) is not None:
        pairs = criteria.of_condition(draft.type, condition, service.base)
        existing = await criteria.matching(context.view, draft.type, pairs, request.now, service)
        if existing is not None:
            return read.version_response(existing)
    id = bundle.id if bundle else service.new_id()
    row = await creation.stored(context, draft, id, service, bundle.written if bundle else frozenset())
    return await _written_response(context, row, 201, request, service)


async def update_in(
    context: WriteContext, request: Request, service: Service, draft: Draft, bundle: BundleContext | None = None
) -> Response:
    """Update, or create with the given id, within a transaction.  ``bundle`` is set for an entry of a transaction Bundle.

    Raises Problem ``forbidden``, ``not_found``, ``unprocessable``, ``too_large``, ``precondition`` or
    ``precondition_required``.
    """
    view = context.view
    write_rights.require_writable(view, draft, "u")
    draft = statements.as_stated(view.permissions, draft, service.labeler.codes)
    app_state.require_condition(view.permissions, draft.type, request)
    id = str(draft.id)
    await context.tx.prefetch((f"{draft.type}/{id}", *draft.local_targets(service.base)))
    current = await _current(context, draft.type, id, "u")
    preconditions.require_unchanged(request, current.visible)
    return await replace_in(context, request, service, draft, current, bundle)


async def replace_in(
    context: WriteContext, request: Request, service: Service, draft: Draft, current: CurrentVersion, bundle: BundleContext | None = None
) -> Response:
    """Write the draft, with its id, in the place of the ``current`` version; :func:`update_in` has judged request and draft.

    Raises Problem ``forbidden``, ``not_found``, ``unprocessable`` or ``conflict``.
    """
    view, id = context.view, str(draft.id)
    targets = draft.local_targets(service.base)
    if current.visible is None:
        if not view.permissions.may_write_labels:
            raise not_found(draft.type, id)
        view.permissions.require(draft.type, "c")
        write_rights.require_covered(view, draft, "c")
    meta_rights.require_may_send(view.permissions, draft, current.visible)
    profile_claims.need_kept(context.checks, draft, current.visible)
    known = (bundle.written if bundle else frozenset()) | {f"{draft.type}/{id}"} | write_rights.present_targets(current.visible)
    await write_rights.require_visible(view, targets - known)
    await statements.require_may_change(context, draft, current.visible)
    if current.stored is not None and current.visible is not None and not view.permissions.sees_everything:
        app_state.require_own(view.permissions, current.stored)
        hidden = await view.hidden_paths(current.stored)
        draft = hidden_elements.restore_hidden(draft, current.stored, current.visible.body, hidden)
    draft = statements.marked(view.permissions, draft)
    row = await context.writer.write(draft, id, takes_labels=True, previous=current.stored)
    await statements.record_provenance(context, row, service)
    if current.stored is None:
        await context.writer.relabel_referrers(f"{draft.type}/{id}")
    return await _written_response(context, row, 200 if current.visible else 201, request, service)


async def delete_in(context: WriteContext, request: Request) -> Response:
    """Delete within a transaction: 204, also for a resource that is absent or hidden.

    Raises Problem ``forbidden``, ``not_found``, ``precondition`` or ``precondition_required``.
    """
    type, id = request.path[:2]
    permissions = context.view.permissions
    write_rights.require_may_delete(permissions, type, request)
    current = await _current(context, type, id, "d")
    preconditions.require_unchanged(request, current.visible)
    if current.visible is None or current.stored is None:
        return Response(204)
    app_state.require_own(permissions, current.stored)
    deleted = await context.writer.delete(current.stored)
    return Response(204, headers=version_headers(VisibleVersion(type, id, deleted.version, deleted.updated, b""))[:1])


async def current_for_change(context: WriteContext, request: Request) -> CurrentVersion:
    """The current version of the resource that the request names, for a change under an update scope.

    Raises Problem ``precondition``, ``not_found`` or ``invalid`` for preconditions that the visible version does not meet.
    """
    type, id = request.path[:2]
    current = await _current(context, type, id, "u")
    preconditions.require_unchanged(request, current.visible)
    return current


async def _current(context: WriteContext, type: str, id: str, interaction: str) -> CurrentVersion:
    visible = await context.view.read_for_write(type, id, interaction)
    stored = await context.tx.read_unfiltered(type, id)
    if visible is not None and stored is not None:
        mark.require_of_client(stored.body)
    return CurrentVersion(visible, stored)


async def _written_response(context: WriteContext, row: Row, status: int, request: Request, service: Service) -> Response:
    """The response to a write: the same headers for all callers, and as much of a body as the caller prefers and may see."""
    view = await service.view_in_transaction(context.view, context.tx)
    visible = await view.visible_after_write(row)
    version = visible or VisibleVersion(row.type, row.id, 1, row.updated, b"")
    location = f"{service.base}/{row.type}/{row.id}/_history/{version.version}".encode()
    headers = ((b"location", location), *version_headers(version))
    preference = request.preference("return", "representation")
    if preference == "minimal" or (visible is None and preference == "representation"):
        return Response(status, headers=headers)
    if preference == "OperationOutcome":
        stored = outcome((Issue("informational", "The resource has been stored.", severity="information"),))
        return Response(status, stored, ((b"content-type", JSON), *headers))
    return Response(status, visible.body if visible else b"", ((b"content-type", JSON), *headers))
