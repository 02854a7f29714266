"""Notifications: a SubscriptionStatus as Parameters, alone in a history Bundle or before what happened.

https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html, in its form for R4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import instant_text
from fhir_server.interactions.subscription_plan import Plan
from fhir_server.interactions.subscription_records import Subscription
from fhir_server.interactions.subscription_topics import GUIDE

_PROFILE: Final = f"{GUIDE}/StructureDefinition/backport-subscription-status-r4"
_METHODS: Final = {"create": "POST", "update": "PUT", "delete": "DELETE"}
_STATUS: Final = {"create": "201", "update": "200", "delete": "204"}

NumberedEvent = tuple[int, VisibleVersion]
"""An event and its number since the Subscription's start."""


def status_parameters(
    id: str, subscription: Subscription, plan: Plan, base: str, kind: str, events: Sequence[NumberedEvent] = ()
) -> dict[str, Any]:
    """The SubscriptionStatus.  ``kind``: handshake, heartbeat, event-notification, query-status or query-event."""
    number = events[-1][0] if events and kind == "event-notification" else subscription.number
    status = "active" if kind == "event-notification" else subscription.status
    parameters: list[dict[str, Any]] = [{"name": "subscription", "valueReference": {"reference": f"{base}/Subscription/{id}"}}]
    if plan.topic:
        parameters.append({"name": "topic", "valueCanonical": plan.topic})
    parameters += [
        {"name": "status", "valueCode": status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(number)},
        *({"name": "notification-event", "part": _event(at, version, base, plan.content)} for at, version in events),
    ]
    if subscription.error:
        parameters.append({"name": "error", "valueCodeableConcept": {"text": subscription.error}})
    return {"resourceType": "Parameters", "id": f"{id}-status", "meta": {"profile": [_PROFILE]}, "parameter": parameters}


def _event(number: int, version: VisibleVersion, base: str, content: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"name": "event-number", "valueString": str(number)},
        {"name": "timestamp", "valueInstant": instant_text(version.updated)},
    ]
    if content != "empty":
        parts.append({"name": "focus", "valueReference": {"reference": f"{base}/{version.type}/{version.id}"}})
    return parts


def notification(
    id: str, subscription: Subscription, plan: Plan, base: str, kind: str, now: int, events: Sequence[NumberedEvent] = ()
) -> bytes:
    """The Bundle of a notification that is made ``now`` (microseconds), as JSON text."""
    status = jsontext.dumps(status_parameters(id, subscription, plan, base, kind, events))
    url = f"{base}/Subscription/{id}/$status"
    first = _entry(url, "GET", f"Subscription/{id}/$status", "200", status)
    shown = events if plan.content != "empty" else ()
    entries = [first, *(_of_event(version, plan.content, base) for _, version in shown)]
    head = b'{"resourceType":"Bundle","type":"history","timestamp":' + jsontext.dumps(instant_text(now))
    return head + b',"entry":[' + b",".join(entries) + b"]}"


def _of_event(version: VisibleVersion, content: str, base: str) -> bytes:
    method, name = _METHODS[version.interaction], f"{version.type}/{version.id}"
    body = version.body if content == "full-resource" and version.interaction != "delete" else b""
    return _entry(f"{base}/{name}", method, version.type if method == "POST" else name, _STATUS[version.interaction], body)


def _entry(full_url: str, method: str, url: str, status: str, body: bytes) -> bytes:
    resource = b'"resource":' + body + b"," if body else b""
    request = jsontext.dumps({"method": method, "url": url})
    return b'{"fullUrl":%s,%s"request":%s,"response":{"status":"%s"}}' % (jsontext.dumps(full_url), resource, request, status.encode())
