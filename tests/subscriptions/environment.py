"""A server with Subscriptions, and a subscriber's endpoint that keeps what it receives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fhir_server import app
from fhir_server.clock import SECOND
from fhir_server.subscriptions.dispatcher import Dispatcher
from fhir_server.web.public_fetch import Hosts
from tests.outside_server import OutsideServer
from tests.served import Answer, Served

TOPIC = "https://fhir-server.example/ig/SubscriptionTopic"
GUIDE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
ENDPOINT = "https://app.example/hook"


class Endpoint(OutsideServer):
    """A subscriber's server."""

    def bundles(self, kind: str = "event-notification") -> list[dict[str, Any]]:
        """The notifications of this kind."""
        found = [json.loads(request.content) for request in self.requests if request.content]
        return [bundle for bundle in found if bundle["resourceType"] == "Bundle" and value(bundle, "type") == kind]

    def events(self) -> list[tuple[int, str]]:
        """(number, reference of the focus or "") of all events received, in order."""
        return [
            (int(part(event, "event-number")), (part(event, "focus") or {}).get("reference", "").split("/fhir/")[-1])
            for bundle in self.bundles()
            for event in status_of(bundle)["parameter"]
            if event["name"] == "notification-event"
        ]

    def methods(self) -> list[tuple[str, str]]:
        """(method, URL) of the entries of what happened, in order."""
        entries = [entry for bundle in self.bundles() for entry in bundle["entry"][1:]]
        return [(entry["request"]["method"], entry["request"]["url"]) for entry in entries]

    def told(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        """All that was received: every byte that depends on the server."""
        return [(request.method, str(request.url), dict(request.headers), request.content) for request in self.requests]


def status_of(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bundle["entry"][0]["resource"]
    return found


def value(bundle: dict[str, Any], name: str) -> Any:
    return part({"part": status_of(bundle)["parameter"]}, name)


def part(event: dict[str, Any], name: str) -> Any:
    return next((next(v for k, v in one.items() if k.startswith("value")) for one in event["part"] if one["name"] == name), None)


def by_topic(type: str = "Observation", content: str = "id-only", *filters: str, **channel: Any) -> dict[str, Any]:
    """A Subscription to the topic of a type."""
    body: dict[str, Any] = {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "test",
        "criteria": f"{TOPIC}/{type}",
        "channel": {
            "type": "rest-hook",
            "endpoint": ENDPOINT,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": f"{GUIDE}/backport-payload-content", "valueCode": content}]},
            **channel,
        },
    }
    if filters:
        body["_criteria"] = {"extension": [{"url": f"{GUIDE}/backport-filter-criteria", "valueString": text} for text in filters]}
    return body


def by_criteria(criteria: str, **channel: Any) -> dict[str, Any]:
    """A Subscription to a search."""
    channel = {"type": "rest-hook", "endpoint": ENDPOINT, **channel}
    return {"resourceType": "Subscription", "status": "requested", "reason": "test", "criteria": criteria, "channel": channel}


def lab(patient: str = "teen", code: str = "718-7") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
    }


class Subscribing:
    """A server whose clock moves with each look, so that all that was written before is found."""

    def __init__(self, served: Served, *statuses: int) -> None:
        self.served = served
        served.at(served.parts.clock() + SECOND)  # the demo records were stored before
        self.endpoint = Endpoint(served.parts.smart, *statuses)
        self.dispatcher = self.new_dispatcher()
        self.counts: dict[str, int] = {}
        self.at_the_end: list[Callable[[], None]] = []

    def close(self) -> None:
        """Stop the server, and before it what a test began."""
        for end in self.at_the_end:
            end()
        self.served.close()

    def new_dispatcher(self) -> Dispatcher:
        """Another server process on the same store."""

        def report(counts: Mapping[str, int]) -> None:
            self.counts = dict(counts)

        return self.served.parts.subscribers.dispatcher(report)

    def only_public(self) -> None:
        """As in production: notifications go to public addresses alone."""
        parts = self.served.parts
        service = replace(parts.service, endpoints=Hosts.PUBLIC)
        self.served.parts = replace(parts, service=service)
        self.served.api = app.fhir_api(self.served.parts)
        self.dispatcher = self.new_dispatcher()

    def subscribe(self, token: str, body: dict[str, Any], status: int = 201) -> str:
        """The id of a new Subscription."""
        answer = self.served.request(token, "POST", "Subscription", body=body)
        assert answer.status == status, answer.body
        return str(answer.json["id"]) if status == 201 else ""

    def active(self, token: str, body: dict[str, Any]) -> str:
        """The id of a new Subscription whose endpoint has been asked."""
        id = self.subscribe(token, body)
        self.look()
        assert self.served.get(token, f"Subscription/{id}").json["status"] == "active"
        return id

    def write(self, body: dict[str, Any], token: str = "") -> str:
        answer = self.served.request(token or self.served.token(), "POST", body["resourceType"], body=body)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def look(self, seconds: float = 10, dispatcher: Dispatcher | None = None) -> None:
        """Let time pass, and do what a server does every second, twice: what the first look began may ask for a second one."""
        self.served.at(self.served.parts.clock() + int(seconds * SECOND))
        for _ in range(2):
            self.served.run(_look(dispatcher or self.dispatcher))

    def read(self, token: str, id: str) -> Answer:
        return self.served.get(token, f"Subscription/{id}")


async def _look(dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    await dispatcher.settle()
