"""Builds the R4 AuditEvent of a security event (http://hl7.org/fhir/R4/auditevent.html)."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.clock import instant_text
from fhir_server.smart.core.security_events import SecurityEvent

_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_EVENT_CODES: Final = "https://fhir-server.example/ig/CodeSystem/audit-act"
_AUTHENTICATION: Final = {"system": _DICOM, "code": "110114", "display": "User Authentication"}
_SECURITY: Final = {"system": _DICOM, "code": "110137", "display": "User Security Attributes Changed"}
_DICOM_SUBTYPES: Final = {
    "sign-in": {"system": _DICOM, "code": "110122", "display": "Login"},
    "sign-out": {"system": _DICOM, "code": "110123", "display": "Logout"},
}
_IP_ADDRESS: Final = "2"


def security_event(event: SecurityEvent, at: int) -> dict[str, Any]:
    """Return the AuditEvent of a security event at an instant (microseconds since 1970 UTC)."""
    login = _DICOM_SUBTYPES.get(event.kind)
    audit_event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _AUTHENTICATION if login else _SECURITY,
        "subtype": [login or {"system": _EVENT_CODES, "code": event.kind}],
        "action": "E",
        "recorded": instant_text(at),
        "outcome": "0" if event.done else "4",
        "agent": _agents(event),
        "source": {"observer": {"display": "fhir-server"}},
    }
    entities: list[dict[str, Any]] = [{"what": {"reference": reference}} for reference in event.about]
    if event.detail:
        details = [{"type": name, "valueString": value} for name, value in event.detail.items()]
        entities.append({"name": event.kind, "detail": details})
    return {**audit_event, "entity": entities} if entities else audit_event


def _agents(event: SecurityEvent) -> list[dict[str, Any]]:
    named = [(event.username, event.username), (event.client_id, f"Client {event.client_id}")]
    agents = [{"altId": id, "who": {"display": display}} for id, display in named if id] or [{"who": {"display": "unidentified"}}]
    first: dict[str, Any] = {"requestor": True}
    if event.address:
        first["network"] = {"address": event.address, "type": _IP_ADDRESS}
    return [agents[0] | first, *(agent | {"requestor": False} for agent in agents[1:])]
