"""Builds the R4 AuditEvent of a security event (http://hl7.org/fhir/R4/auditevent.html)."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.clock import instant_text
from fhir_server.resources.references import exact_target
from fhir_server.smart.core.security_events import SecurityEvent

_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_EVENT_CODES: Final = "https://fhir-server.example/ig/CodeSystem/audit-act"
_AUTHENTICATION: Final = {"system": _DICOM, "code": "110114", "display": "User Authentication"}
_SECURITY: Final = {"system": _DICOM, "code": "110137", "display": "User Security Attributes Changed"}
_DICOM_SUBTYPES: Final = {
    "sign-in": {"system": _DICOM, "code": "110122", "display": "Login"},
    "sign-out": {"system": _DICOM, "code": "110123", "display": "Logout"},
}
_APPLICATION_ACTIVITY: Final = {"system": _DICOM, "code": "110100", "display": "Application Activity"}
_AUDIT_LOG_USED: Final = {"system": _DICOM, "code": "110101", "display": "Audit Log Used"}
_EXPORT: Final = {"system": _DICOM, "code": "110106", "display": "Export"}
_IMPORT: Final = {"system": _DICOM, "code": "110107", "display": "Import"}
_TYPES: Final[dict[str, dict[str, str]]] = {
    "start-server": _APPLICATION_ACTIVITY,
    "stop-server": _APPLICATION_ACTIVITY,
    "read-audit": _AUDIT_LOG_USED,
    "export": _EXPORT,
    "copy-store": _EXPORT,
    "load": _IMPORT,
}
_POLICY: Final = "https://fhir-server.example/ig/policy/"
_IP_ADDRESS: Final = "2"


def security_event(event: SecurityEvent, at: int, policy: str) -> dict[str, Any]:
    """Return the AuditEvent of a security event at an instant (microseconds since 1970 UTC), under the policy with this digest."""
    login = _DICOM_SUBTYPES.get(event.kind)
    audit_event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _AUTHENTICATION if login else _TYPES.get(event.kind, _SECURITY),
        "subtype": [login or {"system": _EVENT_CODES, "code": event.kind}],
        "action": "E",
        "recorded": instant_text(at),
        "outcome": "0" if event.done else "4",
        "agent": _agents(event, policy),
        "source": {"observer": {"display": "fhir-server"}},
    }
    entities: list[dict[str, Any]] = [{"what": {"reference": reference}} for reference in event.about if exact_target(reference)]
    if event.detail:
        details = [{"type": name, "valueString": value} for name, value in event.detail.items()]
        entities.append({"name": event.kind, "detail": details})
    return {**audit_event, "entity": entities} if entities else audit_event


def _agents(event: SecurityEvent, policy: str) -> list[dict[str, Any]]:
    named = [(event.username, event.username), (event.client_id, f"Client {event.client_id}")]
    agents = [{"altId": id, "who": {"display": display}} for id, display in named if id] or [{"who": {"display": "unidentified"}}]
    first: dict[str, Any] = {"requestor": True, "policy": [_POLICY + policy]}
    if event.address:
        first["network"] = {"address": event.address, "type": _IP_ADDRESS}
    return [agents[0] | first, *(agent | {"requestor": False} for agent in agents[1:])]
