"""create, update and delete of Subscriptions (http://hl7.org/fhir/R4/subscription.html).

A Subscription belongs to the client, person and patient context that made it, and rests on the grant of the token of that moment.  It
begins as ``requested``; it becomes ``active`` once the endpoint has accepted a notification.  No answer shows ``channel.header``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import criteria, preconditions, provenance_header, read, subscription_events, subscription_records
from fhir_server.interactions import subscription_search as search
from fhir_server.interactions.messages import AuditContext, Request, Response, version_headers
from fhir_server.interactions.owned_jobs import owner
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_grants import require_grant
from fhir_server.interactions.subscription_plan import Plan, plan_of
from fhir_server.interactions.subscription_records import TYPE, Stored, Subscription
from fhir_server.search import match
from fhir_server.smart.core.scopes import ScopeInteraction
from fhir_server.smart.tokens import lasting
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.writing.draft import Draft

_SENT_BY_SERVER: Final = frozenset({"resourceType", "id", "meta", "status", "_status", "error", "_error"})
_AGAIN: Final = frozenset({"requested", "active", "error"})
MAX_BYTES: Final = 64 * 1024  # each server process holds all Subscriptions in memory
_ATTEMPTS: Final = 8
_MILLISECOND: Final = 1000


def admit_create(permissions: Permissions, _: str) -> None:
    """Require a scope to create Subscriptions.  Raises Problem ``forbidden``."""
    permissions.require(TYPE, "c")


def admit_update(permissions: Permissions, _: str) -> None:
    """Require a scope to update Subscriptions.  Raises Problem ``forbidden``."""
    permissions.require(TYPE, "u")


async def create(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST Subscription``: 201.  Raises Problem ``invalid``, ``unprocessable``, ``forbidden``, ``too_many`` or ``read_only``."""
    preconditions.require_only(request)
    draft, plan = await _received(request, service)
    if draft.value["status"] != "requested":
        raise _status_problem("A new Subscription has the status requested; the server makes it active.")
    await service.require_writable()
    id, now = service.new_id(), request.now

    async def admitted(view: View) -> str:
        await _require_allowed(view, draft, plan, service, "c")
        return owner(view.permissions)

    of = await service.read_with_view(request, audit, admitted)
    grant = await lasting.grant_of(service.store, request.headers.get("authorization", ""), now)
    if grant is None:
        raise Problem("unauthenticated", "The access token is not valid.")
    subscription = Subscription(of, 0, grant, _text(draft), _headers(draft, service), 1, now, _whole(now))
    await subscription_records.add(service.store.key_values, id, subscription, service.new_id())
    if await lasting.grant_of(service.store, request.headers.get("authorization", ""), now) is None:
        # It was revoked meanwhile, and what was stored too late would outlive it.
        await service.store.key_values.delete_family(grant.family)
        raise Problem("unauthenticated", "The access token is not valid.")
    audit.shown.append(((), TYPE, id))
    return _written(subscription.resource(id), 201, request, service)


async def update(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PUT Subscription/id``: 200.  With the status ``off`` it ends; with another one the endpoint is asked again.

    Headers of the channel that are not sent stay, if the endpoint does.  Raises Problem ``not_found`` and what :func:`create` raises.
    """
    draft, plan = await _received(request, service)
    if draft.id != request.path[1]:
        raise Problem("invalid", "The resource's id differs from the id in the URL.")
    await service.require_writable()
    if draft.value["status"] not in _AGAIN | {"off"}:
        raise _status_problem("A Subscription is requested again, or off.")

    async def found(view: View) -> Stored:
        stored = await search.read(view, request.path[1], "u")
        preconditions.require_unchanged(request, stored.version())
        await _require_allowed(view, draft, plan, service, "u")
        caller.append(view.permissions.principal)
        return stored

    caller: list[Principal] = []
    for _ in range(_ATTEMPTS):
        stored = await service.read_with_view(request, audit, found)
        if draft.value["status"] != "off":
            await require_grant(stored, caller[-1], service, request.now)
        changed = _changed(stored.subscription, draft, plan, service, request.now)
        if await subscription_records.replace(service.store.key_values, stored, changed):
            await subscription_records.note_change(service.store.key_values, service.new_id())
            return _written(changed.resource(stored.id), 200, request, service)
    raise Problem("busy", "The server is busy; try again.")


async def delete(request: Request, service: Service, audit: AuditContext) -> Response:
    """``DELETE Subscription/id``: 204, also for one that does not exist.  Raises Problem ``precondition`` or ``forbidden``."""

    async def found(view: View) -> Stored | None:
        view.permissions.require(TYPE, "d")
        criteria.require_none(request)
        provenance_header.require_none(request)
        try:
            stored = await search.read(view, request.path[1], "d")
        except Problem as problem:
            if problem.kind != "not_found":
                raise
            preconditions.require_unchanged(request, None)
            return None
        preconditions.require_unchanged(request, stored.version())
        return stored

    stored = await service.read_with_view(request, audit, found)
    await service.require_writable()
    if stored is not None:
        await subscription_records.remove(service.store.key_values, stored, request.now)
    return Response(204)


async def _received(request: Request, service: Service) -> tuple[Draft, Plan]:
    """The Subscription in the body, and what it asks for.  Raises Problem ``invalid``, ``unprocessable``, ``media_type``, ``too_large``."""
    request.require_json()
    criteria.require_none(request)
    provenance_header.require_none(request)
    if len(request.body) > MAX_BYTES:
        raise Problem("too_large", f"A Subscription may have at most {MAX_BYTES // 1024} KiB.")
    draft = await service.parser.draft(request.body, TYPE, base=service.base)
    plan = plan_of(draft.value, service.base, service.endpoints)
    if plan.end is not None and plan.end <= request.now:
        raise Problem("unprocessable", "The end is in the past.", (Issue("value", "The end is in the past.", ("Subscription.end",)),))
    return draft, plan


async def _require_allowed(view: View, draft: Draft, plan: Plan, service: Service, interaction: ScopeInteraction) -> None:
    """Require that scopes cover the Subscription and what it asks.  Raises Problem ``forbidden`` or ``invalid``."""
    view.permissions.require(TYPE, interaction)
    row = search.searchable(VisibleVersion(TYPE, draft.id or "", 1, view.now, jsontext.join_members(draft.parts)))
    if not match.matches(view.permissions.scope_condition(TYPE, interaction), row, frozenset({0})):
        raise Problem("forbidden", "No scope covers this Subscription.")
    await subscription_events.require_answerable(view, plan, service.base)


def _changed(stored: Subscription, draft: Draft, plan: Plan, service: Service, now: int) -> Subscription:
    present = jsontext.parse(stored.text.encode())["channel"].get("endpoint")
    keeps = "header" not in draft.value["channel"] and present == plan.endpoint
    changed: dict[str, Any] = {"text": _text(draft), "headers": stored.headers if keeps else _headers(draft, service)}
    changed |= {"version": stored.version + 1, "updated": max(now, stored.updated + _MILLISECOND), "error": "", "failures": 0, "due": 0}
    changed |= {"failing_since": 0, "asked": False}
    if stored.status == "off":  # of what happened while it was off, nobody asked to be told
        changed |= {"since": _whole(now), "after": None}
    return msgspec.structs.replace(stored, **changed, status="off" if draft.value["status"] == "off" else "requested")


def _text(draft: Draft) -> str:
    """What is kept of the resource as sent."""
    kept = {name: part for name, part in draft.parts.items() if name not in _SENT_BY_SERVER}
    hidden = [("channel", "header"), ("channel", "_header")]
    return jsontext.remove_paths(jsontext.join_members(kept), hidden).decode()


def _headers(draft: Draft, service: Service) -> bytes:
    lines = draft.value["channel"].get("header", ())
    return service.sealed(msgspec.json.encode(lines)) if lines else b""


def _whole(now: int) -> int:
    """The first whole millisecond from this instant on."""
    return -(-now // _MILLISECOND) * _MILLISECOND


def _status_problem(text: str) -> Problem:
    return Problem("unprocessable", text, (Issue("value", text, ("Subscription.status",)),))


def _written(version: VisibleVersion, status: int, request: Request, service: Service) -> Response:
    location = f"{service.base}/{TYPE}/{version.id}/_history/{version.version}".encode()
    if request.preference("return", "representation") == "minimal":
        return Response(status, headers=((b"location", location), *version_headers(version)))
    response = read.version_response(version, status)
    return Response(status, response.body, ((b"location", location), *response.headers))
