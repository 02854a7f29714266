"""Builds the entries of the audit log from requests and security events.

An entry is ``{"event": AuditEvent, "shown": {patient: [Type/id, ...]}}``: of each patient, the rows that the answer showed.  It is
found by the patients and the user that it names.  The entry of a purge has the member ``purged``, too.

The id of the request is an entity, by the profiles of IHE's Basic Audit Log Patterns: ``what.identifier``, of the type ``XrequestId``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from fhir_server.access.audit_projection import REQUEST_ID
from fhir_server.audit.chain import Purged
from fhir_server.audit.request_events import agents_of, audit_event, patients_named
from fhir_server.audit.security_events import security_event
from fhir_server.clock import parsed_instant
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry

PURGES: Final = "purges"
"""The key of lines about purges."""
_MOST_ROWS: Final = 10_000  # of one request; of more rows, only the patients are recorded


class _Event(msgspec.Struct):
    recorded: str


class _Recorded(msgspec.Struct):
    event: _Event


_recorded = msgspec.json.Decoder(_Recorded).decode
_encode = msgspec.json.Encoder().encode


def request_entry(request: Request, context: AuditContext, status: int, policy: str, entries: Sequence[dict[str, Any]]) -> LogEntry:
    """The entry of a request answered with an HTTP ``status`` under the policy with this digest.

    ``entries``: the entities of a Bundle's entries (:func:`~fhir_server.audit.request_events.bundle_entry`)
    """
    agents = agents_of(context.permissions, request.address, policy)
    event = _of_request(audit_event(request, context, status, agents, entries), request.id)
    members: dict[str, Any] = {"event": event}
    if context.shown and len(context.shown) <= _MOST_ROWS:
        shown: dict[str, dict[str, None]] = {}
        for patients, type, id in context.shown:
            for patient in patients:
                shown.setdefault(patient, {})[f"{type}/{id}"] = None
        members["shown"] = {patient: list(rows) for patient, rows in shown.items()}
    named = (*agents.patients, *patients_named(event.get("entity", ()), "what"))
    return LogEntry(_encode(members), _keys_of(named, agents.asked))


def security_entry(event: SecurityEvent, at: int, policy: str, request_id: str = "") -> LogEntry:
    """The entry of a security event at an instant (microseconds since 1970 UTC), which the request with this id caused ("": none)."""
    return _entry({"event": _of_request(security_event(event, at, policy), request_id)})


def purge_entry(purged: Purged, event: SecurityEvent, at: int, policy: str) -> LogEntry:
    """The entry of a step of a purge of the log."""
    return _entry({"purged": purged, "event": security_event(event, at, policy)})


def is_of_request(line: bytes, id: str) -> bool:
    """Whether the request with this id, which is well-formed, caused a line."""
    return b'{"identifier":{"value":"%s"}}' % id.encode() in line


def _of_request(event: dict[str, Any], id: str) -> dict[str, Any]:
    if id:
        event.setdefault("entity", []).append({"what": {"identifier": {"value": id}}, "type": REQUEST_ID})
    return event


def _entry(members: Mapping[str, Any]) -> LogEntry:
    return LogEntry(_encode(members), keys(members))


def keys(members: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of an entry or line: each patient that its AuditEvent names, alone and with the user that asked; whether it purges."""
    event = members["event"]
    agents = event["agent"]
    patients = (*patients_named(agents, "who"), *patients_named(event.get("entity", ()), "what"))
    if not patients:
        return (PURGES,) if "purged" in members else ()
    return _keys_of(patients, agents[0].get("altId", ""))


def _keys_of(patients: Iterable[str], asked: str) -> tuple[str, ...]:
    return tuple([key for patient in dict.fromkeys(patients) for key in (patient, f"user/{asked}/{patient}")])


def recorded_at(text: bytes) -> int | None:
    """When the event of an entry or line was recorded (microseconds since 1970 UTC); None if it does not say so."""
    try:
        return parsed_instant(_recorded(text).event.recorded)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None


def keys_of_line(line: bytes) -> tuple[str, ...]:
    """The keys of the entry from which a line was made; none of a line of another form, or of an earlier version of the program."""
    try:
        members = msgspec.json.decode(line)
        return keys(members) if "mac" in members else ()
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, IndexError):
        return ()
