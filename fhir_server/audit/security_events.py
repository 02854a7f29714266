"""An act of the sign-in, OAuth and portal pages as an R4 AuditEvent (http://hl7.org/fhir/R4/auditevent.html)."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.clock import instant_text
from fhir_server.smart.core.security_events import SecurityEvent

_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_AUDIT_ACT: Final = "https://fhir-server.example/ig/CodeSystem/audit-act"
_AUTHENTICATION: Final = {"system": _DICOM, "code": "110114", "display": "User Authentication"}
_SECURITY: Final = {"system": _DICOM, "code": "110137", "display": "User Security Attributes Changed"}
_DICOM_SUBTYPES: Final = {
    "sign-in": {"system": _DICOM, "code": "110122", "display": "Login"},
    "sign-out": {"system": _DICOM, "code": "110123", "display": "Logout"},
}
_IP_ADDRESS: Final = "2"


def security_event(act: SecurityEvent, at: int) -> dict[str, Any]:
    """The AuditEvent of an act at an instant (microseconds since 1970 UTC)."""
    login = _DICOM_SUBTYPES.get(act.kind)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _AUTHENTICATION if login else _SECURITY,
        "subtype": [login or {"system": _AUDIT_ACT, "code": act.kind}],
        "action": "E",
        "recorded": instant_text(at),
        "outcome": "0" if act.done else "4",
        "agent": _agents(act),
        "source": {"observer": {"display": "fhir-server"}},
    }
    entities: list[dict[str, Any]] = [{"what": {"reference": one}} for one in act.about]
    if act.detail:
        told = [{"type": name, "valueString": value} for name, value in act.detail.items()]
        entities.append({"name": act.kind, "detail": told})
    return {**event, "entity": entities} if entities else event


def _agents(act: SecurityEvent) -> list[dict[str, Any]]:
    named = [(act.username, act.username), (act.client_id, f"Client {act.client_id}")]
    agents = [{"altId": id, "who": {"display": display}} for id, display in named if id] or [{"who": {"display": "unidentified"}}]
    first: dict[str, Any] = {"requestor": True}
    if act.address:
        first["network"] = {"address": act.address, "type": _IP_ADDRESS}
    return [agents[0] | first, *(agent | {"requestor": False} for agent in agents[1:])]
