"""One request as an R4 AuditEvent (http://hl7.org/fhir/R4/auditevent.html), after IHE's Basic Audit Log Patterns.

Two agents where one person acts for another: who asked, and for whose record.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from fhir_server.clock import instant_text
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request, format_query

_ACTIONS = {"GET": "R", "HEAD": "R", "POST": "C", "PUT": "U", "DELETE": "D"}
_TYPE = {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"}


def audit_event(request: Request, status: int) -> dict[str, Any]:
    """The AuditEvent of a request answered with an HTTP ``status``."""
    searching = _is_search(request)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _TYPE,
        "action": "E" if searching or _is_operation(request) else _ACTIONS.get(request.method, "E"),
        "recorded": instant_text(request.now),
        "outcome": "0" if status < 400 else "4" if status < 500 else "8",
        "outcomeDesc": str(status),
        "agent": _agents(request),
        "source": {"observer": {"display": "fhir-server"}},
    }
    entities = [one for one in (_entity(request), *(_bundle_entry(*entry) for entry in request.entries)) if one]
    return {**event, "entity": entities} if entities else event


def _is_search(request: Request) -> bool:
    return not _is_operation(request) and ((request.method == "GET" and len(request.path) == 1) or request.path[-1:] == ("_search",))


def _is_operation(request: Request) -> bool:
    return any(step.startswith("$") for step in request.path)


def _agents(request: Request) -> list[dict[str, Any]]:
    permissions = request.permissions
    if permissions is None:
        return [{"requestor": True, "who": {"display": "unidentified"}}]
    principal = permissions.principal
    asker = principal.fhir_user or f"Client {principal.client_id}"
    agents: list[dict[str, Any]] = [{"requestor": True, "altId": principal.username or principal.client_id, "who": {"display": asker}}]
    if principal.username:
        agents.append({"requestor": False, "altId": principal.client_id, "who": {"display": f"Client {principal.client_id}"}})
    if principal.patient:
        agents.append({"requestor": False, "who": {"reference": f"Patient/{principal.patient}"}})
    return agents


def _entity(request: Request) -> dict[str, Any]:
    """What was asked of: a row by its reference, searches and operations by their address too."""
    searching, operation = _is_search(request), _is_operation(request)
    entity: dict[str, Any] = {}
    row = len(request.path) > 2 or (len(request.path) == 2 and not searching and not operation)
    if row and not request.path[0].startswith("$"):
        entity["what"] = {"reference": "/".join(request.path[:2])}
    if searching or operation:
        asked = "/".join(request.path) + "?" + format_query((*request.query, *_form_fields(request)))
        entity["query"] = b64encode(asked.encode()).decode()
    return entity


def _form_fields(request: Request) -> Iterable[tuple[str, str]]:
    """The fields of a search by POST; none where they could not be read."""
    if request.path[-1:] != ("_search",):
        return ()
    try:
        return request.form()
    except Problem:
        return ()


def _bundle_entry(request: Request, status: int) -> dict[str, Any]:
    """One entry of a Bundle: what it asked of, how, and (where it stands for itself) how that ended."""
    details = {"method": request.method} | ({"status": str(status)} if status else {})
    return _entity(request) | {"detail": [{"type": name, "valueString": text} for name, text in details.items()]}
