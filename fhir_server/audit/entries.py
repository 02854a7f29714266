"""Builds the entries of the audit log from requests and security events."""

from __future__ import annotations

import msgspec

from fhir_server.audit.request_events import audit_event
from fhir_server.audit.security_events import security_event
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import LogEntry


def request_entry(request: Request, context: AuditContext, status: int, policy: str) -> LogEntry:
    """The entry of a request answered with an HTTP ``status`` under this version of the policy."""
    return LogEntry(msgspec.json.encode({"event": audit_event(request, context, status)}))


def security_entry(event: SecurityEvent, at: int, policy: str) -> LogEntry:
    """The entry of a security event at an instant (microseconds since 1970 UTC)."""
    return LogEntry(msgspec.json.encode({"event": security_event(event, at)}))
