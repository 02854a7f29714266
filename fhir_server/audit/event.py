"""One request as an R4 AuditEvent (http://hl7.org/fhir/R4/auditevent.html), after IHE's Basic Audit Log Patterns.

Two agents where one person acts for another: who asked, and for whose record.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from fhir_server.clock import instant_text
from fhir_server.http import Request, encoded

_ACTIONS = {"GET": "R", "HEAD": "R", "POST": "C", "PUT": "U", "DELETE": "D"}
_TYPE = {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"}


def audit_event(request: Request, status: int) -> dict[str, Any]:
    """The AuditEvent of a request answered with an HTTP ``status``."""
    searching = not _operation(request) and ((request.method == "GET" and len(request.path) == 1) or request.path[-1:] == ("_search",))
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _TYPE,
        "action": "E" if searching or _operation(request) else _ACTIONS.get(request.method, "E"),
        "recorded": instant_text(request.now),
        "outcome": "0" if status < 400 else "4" if status < 500 else "8",
        "outcomeDesc": str(status),
        "agent": _agents(request),
        "source": {"observer": {"display": "fhir-server"}},
    }
    entity = _entity(request, searching)
    return {**event, "entity": [entity]} if entity else event


def _operation(request: Request) -> bool:
    return any(step.startswith("$") for step in request.path)


def _agents(request: Request) -> list[dict[str, Any]]:
    plan = request.plan
    if plan is None:
        return [{"requestor": True, "who": {"display": "unidentified"}}]
    principal = plan.principal
    asker = principal.fhir_user or f"Client {principal.client_id}"
    agents: list[dict[str, Any]] = [{"requestor": True, "altId": principal.username or principal.client_id, "who": {"display": asker}}]
    if principal.username:
        agents.append({"requestor": False, "altId": principal.client_id, "who": {"display": f"Client {principal.client_id}"}})
    if principal.patient:
        agents.append({"requestor": False, "who": {"reference": f"Patient/{principal.patient}"}})
    return agents


def _entity(request: Request, searching: bool) -> dict[str, Any] | None:
    """What was asked of: a row by its reference, searches and operations by their address too."""
    entity: dict[str, Any] = {}
    row = len(request.path) > 2 or (len(request.path) == 2 and not searching and not _operation(request))
    if row and not request.path[0].startswith("$"):
        entity["what"] = {"reference": "/".join(request.path[:2])}
    if searching or _operation(request):
        asked = "/".join(request.path) + "?" + encoded(request.pairs)
        entity["query"] = b64encode(asked.encode()).decode()
    return entity or None
