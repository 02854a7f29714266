"""What a Subscription asks for, read from the resource (http://hl7.org/fhir/R4/subscription.html, and the R5 backport for R4, STU 1.1).

Whatever it asks that the server does not do is refused with the place in the resource: nothing is taken in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.clock import SECOND
from fhir_server.errors import Issue, Problem
from fhir_server.interactions.messages import parse_query
from fhir_server.interactions.subscription_topics import GUIDE, TOPICS
from fhir_server.resources import catalog
from fhir_server.resources.server_base import server_base
from fhir_server.search.parameter_types.date import interval
from fhir_server.web.public_fetch import Hosts, is_allowed

REST_HOOK: Final = "rest-hook"
WEBSOCKET: Final = "websocket"
_CHANNELS: Final = (REST_HOOK, WEBSOCKET)
CONTENTS: Final = ("empty", "id-only", "full-resource")
MAX_COUNT: Final = 100  # events in one notification
MAX_TIMEOUT: Final = 30  # seconds
_DEFAULT_COUNT: Final = 20
_DEFAULT_TIMEOUT: Final = 5
_SHORTEST_HEARTBEAT: Final = 10  # seconds
_MEDIA: Final = ("application/fhir+json", "application/json")
_MAX_URL: Final = 2000
_MAX_HEADERS: Final = 10
_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}): ?([\x21-\x7e](?:[\x20-\x7e]{0,1998}[\x21-\x7e])?)")
_RESERVED: Final = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NO_HISTORY: Final = frozenset({"AuditEvent", "Subscription"})  # lines of the audit log, and records of their owners
_EXTENSION: Final = f"{GUIDE}/StructureDefinition/"
_FILTER: Final = "backport-filter-criteria"
_OF_CHANNEL: Final = {
    "backport-heartbeat-period": ("valueUnsignedInt", _SHORTEST_HEARTBEAT, 24 * 3600),
    "backport-timeout": ("valueUnsignedInt", 1, MAX_TIMEOUT),
    "backport-max-count": ("valuePositiveInt", 1, MAX_COUNT),
}
_CONTENT: Final = "backport-payload-content"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a Subscription asks for.

    ``type``       the type of the resources it is about
    ``topic``      the canonical of its topic; "" for R4's criteria
    ``pairs``      the search parameters that a resource must meet; without any, deletions are events of a topic, too
    ``channel``    :data:`REST_HOOK` or :data:`WEBSOCKET`
    ``endpoint``   where notifications are posted; "" for a websocket, which the subscriber opens
    ``headers``    further headers of a notification, by name
    ``content``    one of :data:`CONTENTS`
    ``heartbeat``  microseconds without a notification after which one without events is sent; 0: never
    ``timeout``    seconds in which the endpoint must answer
    ``max_count``  events in one notification
    ``end``        when it ends, in microseconds; None: never
    """

    type: str
    topic: str
    pairs: tuple[tuple[str, str], ...]
    channel: str
    endpoint: str
    headers: Mapping[str, str]
    content: str
    heartbeat: int = 0
    timeout: int = _DEFAULT_TIMEOUT
    max_count: int = _DEFAULT_COUNT
    end: int | None = None

    @property
    def interactions(self) -> frozenset[str]:
        """Of which changes it is told.  Whether a deleted resource met criteria is not known."""
        deletions = {"delete"} if self.topic and not self.pairs else set()
        return frozenset({"create", "update"} | deletions)


def plan_of(resource: Mapping[str, Any], base: str, hosts: Hosts) -> Plan:
    """The plan of a valid Subscription.  Raises Problem ``unprocessable`` that names what the server does not do."""
    refused = next(_unsupported(resource), None)
    if refused is not None:
        raise _problem(*refused)
    channel = resource["channel"]
    topic = resource["criteria"] if resource["criteria"] in TOPICS else ""
    type, pairs = _criteria(resource, topic, base)
    numbers = _numbers(channel, topic)
    content = _content(channel, topic)
    return Plan(
        type,
        topic,
        pairs,
        channel["type"],
        _endpoint(channel, hosts) if channel["type"] == REST_HOOK else "",
        _headers(channel),
        content,
        numbers.get("backport-heartbeat-period", 0) * SECOND,
        numbers.get("backport-timeout", _DEFAULT_TIMEOUT),
        numbers.get("backport-max-count", _DEFAULT_COUNT) if topic else 1,
        interval(resource["end"])[0] if "end" in resource else None,
    )


def _problem(text: str, place: str, code: str = "not-supported") -> Problem:
    return Problem("unprocessable", text, (Issue(code, text, (f"Subscription.{place}",)),))


def _unsupported(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    channel = resource["channel"]
    if channel["type"] not in _CHANNELS:
        yield f"Channels of the type {channel['type']!r} are not supported; rest-hook and websocket are.", "channel.type"
    if channel["type"] == WEBSOCKET:
        yield from _not_of_a_websocket(channel, resource["criteria"] in TOPICS)
    if "contained" in resource:
        yield "A Subscription with contained resources is not supported.", "contained"
    places = {
        "": resource,
        "criteria": resource.get("_criteria", {}),
        "channel": channel,
        "channel.type": channel.get("_type", {}),
        "channel.endpoint": channel.get("_endpoint", {}),
        "channel.payload": channel.get("_payload", {}),
    }
    taken = {"criteria": {_FILTER}, "channel": set(_OF_CHANNEL), "channel.payload": {_CONTENT}}
    for place, holder in places.items():
        if "modifierExtension" in holder:
            yield "This modifier extension is not supported.", f"{place}.modifierExtension".lstrip(".")
        for extension in holder.get("extension", ()):
            name = extension["url"].removeprefix(_EXTENSION)
            if extension["url"].startswith(GUIDE) and name not in taken.get(place, ()):
                yield f"The extension {extension['url'][:200]!r} is not supported here.", f"{place}.extension".lstrip(".")


def _not_of_a_websocket(channel: Mapping[str, Any], has_topic: bool) -> Iterator[tuple[str, str]]:
    """The members of a websocket channel that say where and how a request would be sent, or what R4's ``ping`` does not hold."""
    for member in ("endpoint", "header"):
        if channel.get(member):
            yield f"A websocket has no {member}: the subscriber opens it.", f"channel.{member}"
    if channel.get("payload") and not has_topic:
        yield "R4's messages on a websocket have no payload; that of a topic has one.", "channel.payload"


def _values(holder: Mapping[str, Any], name: str, member: str) -> list[Any]:
    found = [extension for extension in holder.get("extension", ()) if extension["url"] == _EXTENSION + name]
    return [extension.get(member) for extension in found]


def _criteria(resource: Mapping[str, Any], topic: str, base: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The type, and the search parameters."""
    filters = _values(resource.get("_criteria", {}), _FILTER, "valueString")
    if not topic:
        text = resource["criteria"]
        type, mark, query = (server_base(base).relative(text) or text).partition("?")
        if type not in catalog():
            known = ", ".join(TOPICS)
            raise _problem(f"The criteria are neither Type?search nor one of the topics of this server: {known}.", "criteria")
        if type in _NO_HISTORY:
            raise _problem(f"The server tells of no changes of {type}.", "criteria")
        if filters:
            raise _problem("Filters belong to a topic; R4's criteria are a search.", "criteria.extension")
        return type, _pairs(query, "criteria") if mark else ()
    type, pairs = TOPICS[topic], list[tuple[str, str]]()
    for text in filters:
        before, mark, after = str(text or "").partition("?")
        if not mark or before != type:
            raise _problem(f"A filter of this topic is written {type}?parameter=value.", "criteria.extension", "invalid")
        pairs += _pairs(after, "criteria.extension")
    return type, tuple(pairs)


def _pairs(query: str, place: str) -> tuple[tuple[str, str], ...]:
    try:
        found = parse_query(query.encode("ascii"))
    except (UnicodeEncodeError, Problem):
        raise _problem("The search parameters must be percent-encoded UTF-8.", place, "invalid") from None
    if not found:
        raise _problem("A search needs parameters after the question mark.", place, "invalid")
    return found


def _numbers(channel: Mapping[str, Any], topic: str) -> dict[str, int]:
    numbers = {}
    for name, (member, least, most) in _OF_CHANNEL.items():
        values = _values(channel, name, member)
        if not values:
            continue
        if not topic:
            raise _problem(f"The extension {name} belongs to a topic.", "channel.extension")
        if len(values) > 1 or not isinstance(values[0], int) or not least <= values[0] <= most:
            raise _problem(f"The extension {name} has one {member} from {least} to {most}.", "channel.extension", "value")
        numbers[name] = values[0]
    return numbers


def _content(channel: Mapping[str, Any], topic: str) -> str:
    payload = channel.get("payload", "")
    if payload and payload not in _MEDIA:
        raise _problem(f"Notifications are sent as {_MEDIA[0]}, not as {payload[:100]!r}.", "channel.payload")
    values = _values(channel.get("_payload", {}), _CONTENT, "valueCode")
    if not topic:
        if values:
            raise _problem("The content of the payload is chosen for a topic.", "channel.payload.extension")
        return "full-resource" if payload else "empty"
    if len(values) > 1 or any(value not in CONTENTS for value in values):
        raise _problem(f"The content of the payload is one of {', '.join(CONTENTS)}.", "channel.payload.extension", "value")
    return str(values[0]) if values else "empty"


def _endpoint(channel: Mapping[str, Any], hosts: Hosts) -> str:
    endpoint = channel.get("endpoint", "")
    if not endpoint:
        raise _problem("A rest-hook needs an endpoint.", "channel.endpoint", "required")
    if len(endpoint) > _MAX_URL or not is_allowed(endpoint, hosts):
        raise _problem("The endpoint is a https URL without credentials and without a fragment.", "channel.endpoint", "value")
    return str(endpoint)


def _headers(channel: Mapping[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in channel.get("header", ()):
        match = _HEADER.fullmatch(line)
        name = match[1].lower() if match else ""
        # The line itself is not repeated: it may hold a secret.
        if match is None or name in _RESERVED or name in headers or len(headers) == _MAX_HEADERS:
            text = f"A header is written 'Name: value', each name once, at most {_MAX_HEADERS}; what HTTP itself needs cannot be set."
            raise _problem(text, "channel.header", "value")
        headers[name] = match[2]
    return headers
