"""create, update and delete (http://hl7.org/fhir/R4/http.html#create).

A write is judged in the View of its own transaction: the row it replaces, the rows it names and the rows its condition
matches exist for it only as far as the caller sees them.
"""

from __future__ import annotations

from fhir_server.access.view import View, VisibleVersion, not_found
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import app_state, read
from fhir_server.interactions.messages import JSON, Request, Response, etag_version, parse_query, version_headers
from fhir_server.interactions.service import Service
from fhir_server.search import query
from fhir_server.smart.core.scopes import ScopeInteraction
from fhir_server.store import Row, Transaction
from fhir_server.writing import hidden_elements, writer
from fhir_server.writing.writer import Draft, ResourceWriter


async def create(request: Request, service: Service) -> Response:
    """``POST Type``, also with ``If-None-Exist``; the server chooses the id.

    Raises Problem ``invalid`` for search parameters in the address: a client that sends them there wants a conditional
    create, and would get duplicates.
    """
    request.require_json()
    if any(name not in ("_format", "_pretty") for name, _ in request.query):
        raise Problem("invalid", "A create takes no search parameters; a conditional create sends them in If-None-Exist.")
    draft = writer.parse_draft(request.body, request.path[0], base=service.base)
    return await service.write_with_view(request, lambda view, tx, writing: create_in(view, tx, writing, request, service, draft))


async def update(request: Request, service: Service) -> Response:
    """``PUT Type/id``; a trusted caller may so create a resource under an id of its choice."""
    request.require_json()
    draft = writer.parse_draft(request.body, request.path[0], base=service.base)
    if draft.id != request.path[1]:
        raise Problem("invalid", "The resource's id is not the one in the address.")
    return await service.write_with_view(request, lambda view, tx, writing: update_in(view, tx, writing, request, service, draft))


async def delete(request: Request, service: Service) -> Response:
    """``DELETE Type/id``: 204, also for what is not there."""
    return await service.write_with_view(request, lambda view, tx, writing: delete_in(view, tx, writing, request))


async def create_in(
    view: View,
    tx: Transaction,
    writing: ResourceWriter,
    request: Request,
    service: Service,
    draft: Draft,
    id: str = "",
    known: frozenset[str] = frozenset(),
) -> Response:
    """``id`` and ``known`` serve transactions: the id already promised to other entries, and what they will have written."""
    allow(view, draft, "c")
    if condition := request.headers.get("if-none-exist"):
        existing = await matching(view, draft.type, condition, request, service)
        if existing is not None:
            return read.answer(existing)
    id = id or service.new_id()
    targets = referenced_rows(draft, service.base)
    await tx.prefetch((f"{draft.type}/{id}", *targets))
    await require_visible(view, targets - known)
    source = app_state.owner(view.permissions, draft.type)
    row = await writing.write(draft, id, trusted=view.permissions.trusted, previous=None, source=source)
    return await _written_response(view, tx, row, 201, request, service)


async def update_in(
    view: View,
    tx: Transaction,
    writing: ResourceWriter,
    request: Request,
    service: Service,
    draft: Draft,
    known: frozenset[str] = frozenset(),
) -> Response:
    allow(view, draft, "u")
    app_state.require_condition(view.permissions, draft.type, request)
    id = str(draft.id)
    targets = referenced_rows(draft, service.base)
    await tx.prefetch((f"{draft.type}/{id}", *targets))
    seen, current = await _current(view, tx, draft.type, id, "u")
    _require_match(request, seen)
    if seen is None and not view.permissions.trusted:
        raise not_found(draft.type, id)
    if seen is None:
        view.permissions.require(draft.type, "c")
        require_covered(view, draft, "c")
    await require_visible(view, targets - known - {f"{draft.type}/{id}"})
    if current is not None and seen is not None and not view.permissions.everything:
        app_state.require_own(view.permissions, current)
        draft = hidden_elements.restore_hidden(draft, current, await view.hidden_paths(current))
    row = await writing.write(draft, id, trusted=view.permissions.trusted, previous=current)
    if current is None:
        await writing.relabel_referrers(f"{draft.type}/{id}")
    return await _written_response(view, tx, row, 200 if seen else 201, request, service)


async def delete_in(view: View, tx: Transaction, writing: ResourceWriter, request: Request) -> Response:
    type, id = request.path[:2]
    view.permissions.require(type, "d")
    if not view.permissions.trusted and not (app_state.covers_app_state(view.permissions, type) and view.permissions.may_write(type, "d")):
        raise Problem("forbidden", f"This caller may not delete {type}.")
    app_state.require_condition(view.permissions, type, request)
    seen, current = await _current(view, tx, type, id, "d")
    _require_match(request, seen)
    if seen is None or current is None:
        return Response(204)
    app_state.require_own(view.permissions, current)
    gone = await writing.delete(current)
    return Response(204, headers=version_headers(gone.version, gone.updated)[:1])


def allow(view: View, draft: Draft, interaction: ScopeInteraction) -> None:
    """Refuse a write that the scopes, the policy, or the caller's own body rules out; consults no stored data."""
    view.permissions.require(draft.type, interaction)
    permissions = view.permissions
    if not permissions.trusted and (
        not permissions.may_write(draft.type, interaction) or (interaction == "u" and permissions.principal.client_kind == "backend")
    ):
        raise Problem("forbidden", f"This caller may not write {draft.type}.")
    require_covered(view, draft, interaction)
    app_state.check(permissions, draft)


def require_covered(view: View, draft: Draft, interaction: ScopeInteraction) -> None:
    """Refuse a resource, as sent, that no scope covers: by whose record it is in, or by what it is.  Raises Problem ``forbidden``."""
    if not view.permissions.covers_resource(interaction, draft.type, draft.value):
        raise Problem("forbidden", "The resource's subject is not a patient whose record this access token opens, or no scope covers it.")


def referenced_rows(draft: Draft, base: str) -> frozenset[str]:
    """The ``Type/id`` of all rows of ours that a draft refers to."""
    targets = {writer.relative(reference, base) for reference in draft.references()}
    return frozenset(target for target in targets if writer.is_local(target))


async def require_visible(view: View, targets: frozenset[str]) -> None:
    """Refuse references to what the caller cannot know of, alike for hidden and absent.  Raises Problem ``unprocessable``."""
    # A token that may only write need not be able to read the record it writes into.
    wanted = targets - {f"Patient/{patient}" for patient in view.permissions.patients or ()}
    missing = wanted - await view.visible_targets(wanted) if wanted else wanted
    if missing:
        raise Problem("unprocessable", f"The reference {min(missing)} does not resolve.")


async def _current(
    view: View, tx: Transaction, type: str, id: str, interaction: ScopeInteraction
) -> tuple[VisibleVersion | None, Row | None]:
    """The row as the caller sees it under a scope for ``interaction`` (None: not at all, or deleted), and as it is stored."""
    return await view.read_for_write(type, id, interaction), await tx.read_unfiltered(type, id)


def _require_match(request: Request, seen: VisibleVersion | None) -> None:
    """Optimistic locking against the version the caller sees.  Raises Problem ``precondition`` (or ``not_found``)."""
    wanted = request.headers.get("if-match")
    if wanted is None:
        return
    if seen is None:
        raise not_found(*request.path[:2])
    if etag_version(wanted) != str(seen.version):
        raise Problem("precondition", "If-Match does not name the current version.")


async def matching(view: View, type: str, condition: str, request: Request, service: Service) -> VisibleVersion | None:
    """The one row in view that a conditional create's criteria match.  Raises Problem ``precondition`` for several."""
    asked = query.parse(type, list(parse_query(condition.lstrip("?").encode())), strict=True, now=request.now, base=service.base)
    if not asked.applied:
        raise Problem("invalid", "If-None-Exist needs at least one search parameter.")
    view.permissions.require(type, "s")
    found, _ = await view.find(type, asked.where, limit=2)
    if len(found) > 1:
        raise Problem("precondition", "If-None-Exist matches several resources.")
    return found[0] if found else None


async def _written_response(view: View, tx: Transaction, row: Row, status: int, request: Request, service: Service) -> Response:
    """The answer to a write: always the same head, and as much of a body as the caller asked for and may see."""
    seen = await (await service.view_in_transaction(view, tx)).visible_after_write(row)
    version, updated = (seen.version, seen.updated) if seen else (1, row.updated)
    location = f"{service.base}/{row.type}/{row.id}/_history/{version}".encode()
    headers = ((b"location", location), *version_headers(version, updated))
    wanted = request.preference("return", "representation")
    if wanted == "minimal" or (seen is None and wanted == "representation"):
        return Response(status, headers=headers)
    if wanted == "OperationOutcome":
        done = outcome((Issue("informational", "The resource has been stored.", severity="information"),))
        return Response(status, done, ((b"content-type", JSON), *headers))
    return Response(status, seen.body if seen else b"", ((b"content-type", JSON), *headers))
