"""Builds the R4 AuditEvent of a FHIR request (http://hl7.org/fhir/R4/auditevent.html), by IHE's Basic Audit Log Patterns.

The agents are the user or client that sent the request, the client if a user sent it, and the patient of the token.
Events are dicts, because building them as models of ``fhir.resources`` takes about a hundred times as long, on the event loop.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from fhir_server.access.permissions import Permissions
from fhir_server.clock import instant_text
from fhir_server.errors import Problem
from fhir_server.interactions.messages import AuditContext, Request, format_query

_ACTIONS = {"GET": "R", "HEAD": "R", "POST": "C", "PUT": "U", "DELETE": "D"}
_LABEL_CHANGE = "https://fhir-server.example/ig/CodeSystem/label-change"
_TYPE = {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"}


def audit_event(request: Request, context: AuditContext, status: int) -> dict[str, Any]:
    """The AuditEvent of a request answered with an HTTP ``status``."""
    is_search = _is_search(request)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _TYPE,
        "action": "E" if is_search or _is_operation(request) else _ACTIONS.get(request.method, "E"),
        "recorded": instant_text(request.now),
        "outcome": "0" if status < 400 else "4" if status < 500 else "8",
        "outcomeDesc": str(status),
        "agent": _agents(context.permissions),
        "source": {"observer": {"display": "fhir-server"}},
    }
    if context.labels is not None:
        code = "add-labels" if context.labels.added else "remove-labels"
        event["subtype"] = [{"system": _LABEL_CHANGE, "code": code}]
    entities = [entity for entity in (_entity(request), *(_bundle_entry(*entry) for entry in context.entries)) if entity]
    if context.labels is not None and entities:
        entities[0]["detail"] = [{"type": "label", "valueString": item} for item in context.labels.items]
    return {**event, "entity": entities} if entities else event


def _is_search(request: Request) -> bool:
    return not _is_operation(request) and ((request.method == "GET" and len(request.path) == 1) or request.path[-1:] == ("_search",))


def _is_operation(request: Request) -> bool:
    return any(step.startswith("$") for step in request.path)


def _agents(permissions: Permissions | None) -> list[dict[str, Any]]:
    if permissions is None:
        return [{"requestor": True, "who": {"display": "unidentified"}}]
    principal = permissions.principal
    requester = principal.fhir_user or f"Client {principal.client_id}"
    agents: list[dict[str, Any]] = [{"requestor": True, "altId": principal.username or principal.client_id, "who": {"display": requester}}]
    if principal.username:
        agents.append({"requestor": False, "altId": principal.client_id, "who": {"display": f"Client {principal.client_id}"}})
    if principal.patient:
        agents.append({"requestor": False, "who": {"reference": f"Patient/{principal.patient}"}})
    return agents


def _entity(request: Request) -> dict[str, Any]:
    """Return what the request was about: a resource by its reference, a search or operation by its URL (base64)."""
    is_search, is_operation = _is_search(request), _is_operation(request)
    entity: dict[str, Any] = {}
    names_resource = len(request.path) > 2 or (len(request.path) == 2 and not is_search and not is_operation)
    if names_resource and not request.path[0].startswith("$"):
        entity["what"] = {"reference": "/".join(request.path[:2])}
    if is_search or is_operation:
        url = "/".join(request.path) + "?" + format_query((*request.query, *_form_fields(request)))
        entity["query"] = b64encode(url.encode()).decode()
    return entity


def _form_fields(request: Request) -> Iterable[tuple[str, str]]:
    """Return the form fields of a search by POST; none if they cannot be read."""
    if request.path[-1:] != ("_search",):
        return ()
    try:
        return request.form()
    except Problem:
        return ()


def _bundle_entry(request: Request, status: int) -> dict[str, Any]:
    """Return the entity of a Bundle entry, with its method and, if it is not 0, its own status."""
    details = {"method": request.method} | ({"status": str(status)} if status else {})
    return _entity(request) | {"detail": [{"type": name, "valueString": text} for name, text in details.items()]}
