"""create, update and delete (http://hl7.org/fhir/R4/http.html#create).

A write uses the caller's View of its own transaction.  The current version, the references' targets and the matches of a
condition count only as far as the caller can see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fhir_server.access import etags
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, VisibleVersion, not_found
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import app_state, meta_rights, read, statements
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response, parse_query, version_headers
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.resources.references import versioned_target
from fhir_server.resources.server_base import server_base
from fhir_server.search import query
from fhir_server.smart.core.scopes import ScopeInteraction
from fhir_server.store import Row
from fhir_server.writing import hidden_elements
from fhir_server.writing.draft import Draft
from fhir_server.writing.parser import is_large
from fhir_server.writing.references import references


@dataclass(frozen=True, slots=True)
class BundleContext:
    """What a create or update in a transaction Bundle needs from the Bundle.

    ``id``       the id of the entry's resource, to which other entries' references already lead
    ``written``  ``Type/id`` of all resources that the Bundle writes: references to them are valid
    """

    id: str
    written: frozenset[str]


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
    require_no_criteria(request)
    draft = await _draft(request, service, audit)
    return await service.write_with_view(request, audit, lambda context: create_in(context, request, service, draft))


async def update(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PUT Type/id``.  A trusted caller can also create a resource with an id of its choice."""
    request.require_json()
    require_no_criteria(request)
    draft = await _draft(request, service, audit)
    if draft.id != request.path[1]:
        raise Problem("invalid", "The resource's id differs from the id in the URL.")
    return await service.write_with_view(request, audit, lambda context: update_in(context, request, service, draft))


async def _draft(request: Request, service: Service, audit: AuditContext) -> Draft:
    audit.just_admitted = audit.just_admitted and not is_large(request.body)
    return await service.parser.draft(request.body, request.path[0], base=service.base)


async def delete(request: Request, service: Service, audit: AuditContext) -> Response:
    """``DELETE Type/id``: 204, also for a resource that does not exist."""
    require_no_criteria(request)
    return await service.write_with_view(request, audit, lambda context: delete_in(context, request))


def require_no_criteria(request: Request) -> None:
    """Require that the URL of a write has no search parameters, which would be ignored.  Raises Problem ``invalid``."""
    if any(name not in ("_format", "_pretty") for name, _ in request.query):
        raise Problem("invalid", "This URL takes no search parameters; a conditional create sends them in If-None-Exist.")


async def create_in(
    context: WriteContext, request: Request, service: Service, draft: Draft, bundle: BundleContext | None = None
) -> Response:
    """Create within a transaction.  ``bundle`` is set for an entry of a transaction Bundle.

    Raises Problem ``forbidden``, ``unprocessable``, ``too_large`` or ``precondition``.
    """
    view = context.view
    require_writable(view, draft, "c")
    draft = statements.as_stated(view.permissions, draft, service.labeler.codes)
    meta_rights.require_may_send(view.permissions, draft, None)
    if (condition := request.headers.get("if-none-exist")) is not None:
        existing = await matching(view, draft.type, criteria_of(draft.type, condition, service.base), request.now, service)
        if existing is not None:
            return read.version_response(existing)
    id = bundle.id if bundle else service.new_id()
    targets = draft.local_targets(service.base)
    await context.tx.prefetch((f"{draft.type}/{id}", *targets))
    await require_visible(view, targets - (bundle.written if bundle else frozenset()))
    await statements.require_may_change(context, draft, None)
    draft = statements.marked(view.permissions, draft)
    source = app_state.owner(view.permissions, draft.type)
    row = await context.writer.write(draft, id, takes_labels=True, previous=None, source=source)
    await statements.record_provenance(context, row, service)
    return await _written_response(context, row, 201, request, service)


async def update_in(
    context: WriteContext, request: Request, service: Service, draft: Draft, bundle: BundleContext | None = None
) -> Response:
    """Update, or create with the given id, within a transaction.  ``bundle`` is set for an entry of a transaction Bundle.

    Raises Problem ``forbidden``, ``not_found``, ``unprocessable``, ``too_large``, ``precondition`` or
    ``precondition_required``.
    """
    view, tx = context.view, context.tx
    require_writable(view, draft, "u")
    draft = statements.as_stated(view.permissions, draft, service.labeler.codes)
    app_state.require_condition(view.permissions, draft.type, request)
    id = str(draft.id)
    targets = draft.local_targets(service.base)
    await tx.prefetch((f"{draft.type}/{id}", *targets))
    current = await _current(context, draft.type, id, "u")
    _require_match(request, current.visible)
    if current.visible is None:
        if not view.permissions.may_write_labels:
            raise not_found(draft.type, id)
        view.permissions.require(draft.type, "c")
        require_covered(view, draft, "c")
    meta_rights.require_may_send(view.permissions, draft, current.visible)
    known = (bundle.written if bundle else frozenset()) | {f"{draft.type}/{id}"} | _present_targets(current.visible)
    await require_visible(view, targets - known)
    await statements.require_may_change(context, draft, current.visible)
    if current.stored is not None and current.visible is not None and not view.permissions.sees_everything:
        app_state.require_own(view.permissions, current.stored)
        draft = hidden_elements.restore_hidden(draft, current.stored, await view.hidden_paths(current.stored))
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
    permissions.require(type, "d")
    if not permissions.may_write_labels and not (app_state.covers_app_state(permissions, type) and permissions.may_write(type, "d")):
        raise Problem("forbidden", f"This caller may not delete {type}.")
    app_state.require_condition(permissions, type, request)
    current = await _current(context, type, id, "d")
    _require_match(request, current.visible)
    if current.visible is None or current.stored is None:
        return Response(204)
    app_state.require_own(permissions, current.stored)
    deleted = await context.writer.delete(current.stored)
    return Response(204, headers=version_headers(VisibleVersion(type, id, deleted.version, deleted.updated, b""))[:1])


def admit_create(permissions: Permissions, type: str) -> None:
    """Require that the caller may create resources of this type.  Raises Problem ``forbidden``."""
    _require_may_write(permissions, type, "c")


def admit_update(permissions: Permissions, type: str) -> None:
    """Require that the caller may update resources of this type.  Raises Problem ``forbidden``."""
    _require_may_write(permissions, type, "u")


def _require_may_write(permissions: Permissions, type: str, interaction: ScopeInteraction) -> None:
    permissions.require(type, interaction)
    if not permissions.may_write_labels and (
        not permissions.may_write(type, interaction) or (interaction == "u" and permissions.principal.client_kind == "backend")
    ):
        raise Problem("forbidden", f"This caller may not write {type}.")


def require_writable(view: View, draft: Draft, interaction: ScopeInteraction) -> None:
    """Require that scopes, policy and the draft's own content allow the write; ``interaction`` is ``c`` or ``u``.

    Reads no stored data.  Raises Problem ``forbidden``, ``too_large`` or ``unprocessable``.
    """
    _require_may_write(view.permissions, draft.type, interaction)
    require_covered(view, draft, interaction)
    app_state.check(view.permissions, draft)


def require_covered(view: View, draft: Draft, interaction: ScopeInteraction) -> None:
    """Require that a scope covers the resource as sent, by its patient and its content.  Raises Problem ``forbidden``."""
    if not view.permissions.covers_resource(interaction, draft.type, draft.value):
        raise Problem("forbidden", "The resource's subject is not a patient whose record this access token opens, or no scope covers it.")


async def require_visible(view: View, targets: frozenset[str]) -> None:
    """Require that the caller can see these references' targets.

    Raises Problem ``unprocessable``, with the same text for hidden and absent targets.
    """
    # A token without read scopes can write into its own patient's record.
    wanted = targets - {f"Patient/{patient}" for patient in view.permissions.patients or ()}
    missing = wanted - await view.visible_targets(wanted) if wanted else wanted
    if missing:
        raise Problem("unprocessable", f"The reference {min(missing)} does not resolve.")


def _present_targets(visible: VisibleVersion | None) -> frozenset[str]:
    """The targets that the current version has, as the caller sees it: an update may keep a reference to a deleted resource."""
    texts = references(visible.body) if visible else ()
    return frozenset("/".join(target) for target in map(versioned_target, texts) if target)


async def current_for_change(context: WriteContext, request: Request) -> CurrentVersion:
    """The current version of the resource that the request names, for a change under an update scope.

    Raises Problem ``precondition`` or ``not_found`` if If-Match does not name the visible version.
    """
    type, id = request.path[:2]
    current = await _current(context, type, id, "u")
    _require_match(request, current.visible)
    return current


async def _current(context: WriteContext, type: str, id: str, interaction: ScopeInteraction) -> CurrentVersion:
    visible = await context.view.read_for_write(type, id, interaction)
    return CurrentVersion(visible, await context.tx.read_unfiltered(type, id))


def _require_match(request: Request, visible: VisibleVersion | None) -> None:
    """Require that If-Match, if sent, names the visible version, and If-None-Match does not (RFC 9110, section 13.1).

    Raises Problem ``precondition`` or ``not_found``.
    """
    excluded = request.headers.get("if-none-match")
    if excluded is not None and visible is not None and etags.names_version(excluded, visible):
        raise Problem("precondition", "If-None-Match names the current version.")
    required = request.headers.get("if-match")
    if required is None:
        return
    if visible is None:
        raise not_found(*request.path[:2])
    if not etags.names_version(required, visible):
        raise Problem("precondition", "If-Match does not name the current version.")


def criteria_of(type: str, condition: str, base: str) -> tuple[tuple[str, str], ...]:
    """The search parameters of a condition: of ``criteria``, ``?criteria``, ``Type?criteria`` or ``[base]/Type?criteria``.

    Raises Problem ``invalid`` for none, and for a condition on another type.
    """
    text = server_base(base).relative(condition) or condition
    before, mark, after = text.partition("?")
    if mark and before in ("", type):
        text = after
    elif mark and "=" not in before:
        raise Problem("invalid", f"A condition for {type} is written {type}?criteria.")
    pairs = parse_query(text.encode())
    if not pairs:
        raise Problem("invalid", "A condition needs at least one search parameter.")
    return pairs


async def matching(view: View, type: str, pairs: Sequence[tuple[str, str]], now: int, service: Service) -> VisibleVersion | None:
    """The visible resource that the criteria of a conditional create match, or None.

    Raises Problem ``precondition`` for several, ``invalid`` for criteria without a search parameter, or ``forbidden``.
    """
    matches = await _matches(view, type, pairs, now, service)
    if len(matches) > 1:
        raise Problem("precondition", "If-None-Exist matches several resources.")
    return matches[0] if matches else None


async def one_match(view: View, type: str, pairs: Sequence[tuple[str, str]], reference: str, service: Service) -> str:
    """``Type/id`` of the one visible resource that the conditional reference ``reference`` matches.

    Raises Problem ``unprocessable`` for none and for several, ``invalid`` or ``forbidden``.
    """
    matches = await _matches(view, type, pairs, view.now, service)
    if len(matches) != 1:
        several = "several resources" if matches else "no resource"
        raise Problem("unprocessable", f"The reference {reference[:80]!r} matches {several}.")
    return f"{type}/{matches[0].id}"


async def _matches(view: View, type: str, pairs: Sequence[tuple[str, str]], now: int, service: Service) -> list[VisibleVersion]:
    where = query.condition(type, pairs, now, service.base)
    view.permissions.require(type, "s")
    return (await view.find(type, where, limit=2)).versions


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
