"""``$status`` and ``$events`` of Subscriptions (https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/, operations).

Both are answered to the owner alone.  ``$events`` gives events of which the endpoint was told, as the caller sees them now: what is
not visible any more is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, preconditions, subscription_search
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.operation_parameters import Kinds, read_parameters
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_events import visible_again
from fhir_server.interactions.subscription_notices import NumberedEvent, notification, status_parameters
from fhir_server.interactions.subscription_plan import CONTENTS
from fhir_server.interactions.subscription_records import TYPE, Stored

_OF_STATUS: Final[Kinds] = {"id": "texts", "status": "texts"}
_OF_EVENTS: Final[Kinds] = {"eventsSinceNumber": "number", "eventsUntilNumber": "number", "content": "text"}


def admit(permissions: Permissions, _: str) -> None:
    """Require a scope to read Subscriptions.  Raises Problem ``forbidden``."""
    permissions.require(TYPE, "r")


async def status(view: View, request: Request, service: Service) -> Response:
    """``Subscription/$status`` and ``Subscription/id/$status``: a searchset of the statuses.

    Raises Problem ``not_found``, ``forbidden`` or ``invalid``.
    """
    preconditions.require_only(request)
    admit(view.permissions, TYPE)
    asked = await read_parameters(request, service, _OF_STATUS)
    if len(request.path) == 3:
        found: Sequence[Stored] = [await subscription_search.read(view, request.path[1])]
    else:
        found = await subscription_search.readable(view, frozenset(asked.all("id")))
    wanted = set(asked.all("status"))
    entries = [_status_entry(stored, service) for stored in found if not wanted or stored.subscription.status in wanted]
    itself = bundle_json.query_url(service.base, "/".join(request.path), asked.given())
    parts = bundle_json.searchset(entries, links=[("self", itself)], total=len(entries))
    return Response(200, headers=((b"content-type", JSON),), parts=parts)


def _status_entry(stored: Stored, service: Service) -> bundle_json.Entry:
    plan = stored.subscription.plan(service.base, service.endpoints)
    parameters = status_parameters(stored.id, stored.subscription, plan, service.base, "query-status")
    return b'{"resource":', jsontext.dumps(parameters), b',"search":{"mode":"match"}}'


async def events(view: View, request: Request, service: Service) -> Response:
    """``Subscription/id/$events``: a notification with the events between two numbers, of the last ones.

    Raises Problem ``not_found``, ``forbidden`` or ``invalid``.
    """
    preconditions.require_only(request)
    asked = await read_parameters(request, service, _OF_EVENTS)
    stored = await subscription_search.read(view, request.path[1])
    plan = stored.subscription.plan(service.base, service.endpoints)
    if not plan.topic:
        raise Problem("invalid", "Only Subscriptions to a topic have numbered events.")
    content = asked.text("content") or plan.content
    if content not in CONTENTS:
        raise Problem("invalid", f"The content is one of {', '.join(CONTENTS)}.")
    first, last = asked.number("eventsSinceNumber") or 0, asked.number("eventsUntilNumber")
    wanted = [sent for sent in stored.subscription.recent if first <= sent.number and (last is None or sent.number <= last)]
    view.permissions.require(plan.type, "r")
    versions = await visible_again(view, wanted)
    shown: list[NumberedEvent] = [(sent.number, version) for sent, version in zip(wanted, versions, strict=True) if version is not None]
    asked_plan = replace(plan, content=content)
    body = notification(stored.id, stored.subscription, asked_plan, service.base, "query-event", view.now, shown)
    return Response(200, body, ((b"content-type", JSON),))
