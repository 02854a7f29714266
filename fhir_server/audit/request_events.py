"""Builds the R4 AuditEvent of a FHIR request (http://hl7.org/fhir/R4/auditevent.html), by IHE's Basic Audit Log Patterns.

The agents are the user or client that sent the request, the client if a user sent it, and the patient of the token.  The entities are
what the request was about, each entry of a Bundle, and each patient of whom a row was shown.  Events are dicts, because building
them as models of ``fhir.resources`` takes about a hundred times as long, on the event loop.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from fhir_server.access.permissions import Permissions
from fhir_server.clock import instant_text
from fhir_server.consent.policy import ActorKind
from fhir_server.errors import Problem
from fhir_server.interactions.messages import AuditContext, AuditedEntry, Request, format_query
from fhir_server.resources import catalog
from fhir_server.resources.references import ID, exact_target

_ACTIONS: Final = {"GET": "R", "HEAD": "R", "POST": "C", "PUT": "U", "PATCH": "U", "DELETE": "D"}
_LABEL_CHANGE: Final = "https://fhir-server.example/ig/CodeSystem/label-change"
_POLICY: Final = "https://fhir-server.example/ig/policy/"
_TYPE: Final = {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"}
_OBJECT_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"
PATIENT_ROLE: Final = {"system": _OBJECT_ROLE, "code": "1"}
_QUERY_ROLE: Final = {"system": _OBJECT_ROLE, "code": "24"}
_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_WITH_PURPOSE: Final = {  # what a role acts for; a system does not say it
    ActorKind.ADULT_SELF: "PATRQT",
    ActorKind.MINOR_SELF: "PATRQT",
    ActorKind.CHILD_PROXY: "FAMRQT",
    ActorKind.TEEN_PROXY: "FAMRQT",
    ActorKind.ADULT_PROXY: "FAMRQT",
    ActorKind.REPRESENTATIVE: "PWATRNY",
    ActorKind.CLINICIAN: "TREAT",
    ActorKind.TREATING_ORGANIZATION: "TREAT",
    ActorKind.BREAK_GLASS: "BTG",
    ActorKind.BILLING_OFFICE: "HPAYMT",
    ActorKind.PRIVACY_OFFICE: "HCOMPL",
}
_PURPOSES: Final = {kind: [{"coding": [{"system": _REASON, "code": code}]}] for kind, code in _WITH_PURPOSE.items()}
_APPLICATION: Final = {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110150"}]}
_IP_ADDRESS: Final = "2"
_SECRET_PARAMETERS: Final = frozenset({"access_token", "refresh_token", "id_token", "client_secret", "code_verifier", "password"})


class Agents(NamedTuple):
    """The agents of an AuditEvent as JSON, the references to patients among them, and the name of who asked ("": nobody that is known)."""

    text: msgspec.Raw
    patients: tuple[str, ...]
    asked: str


def audit_event(request: Request, context: AuditContext, status: int, agents: Agents, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The AuditEvent of a request answered with an HTTP ``status``.

    ``entries``: the entities of a Bundle's entries (:func:`bundle_entry`)
    """
    is_operation = _is_operation(request)
    is_search = not is_operation and _is_search(request)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": _TYPE,
        "action": "E" if is_search or is_operation else _ACTIONS.get(request.method, "E"),
        "recorded": instant_text(request.now),
        "outcome": "0" if status < 400 else "4" if status < 500 else "8",
        "outcomeDesc": str(status),
        "agent": agents.text,
        "source": {"observer": {"display": "fhir-server"}},
    }
    if context.labels is not None:
        code = "add-labels" if context.labels.added else "remove-labels"
        event["subtype"] = [{"system": _LABEL_CHANGE, "code": code}]
    actor = context.permissions.actor if context.permissions else None
    if actor is not None and actor.kind in _PURPOSES:
        event["purposeOfEvent"] = _PURPOSES[actor.kind]
    entities = [entity for entity in (_entity(request, is_search, is_operation), *entries) if entity]
    if _is_conditional(request):
        entities += [{"what": {"reference": name}} for name in _written(request.path[0], context)]
    elif not entities and request.method == "POST" and len(request.path) == 1:
        entities = [{"what": {"reference": name}} for name in _created(request.path[0], context)]
    if context.labels is not None and entities:
        entities[0]["detail"] = [{"type": "label", "valueString": item} for item in context.labels.items]
    if context.shown:
        patients = dict.fromkeys([patient for patients, _, _ in context.shown for patient in patients])
        entities += [{"what": {"reference": f"Patient/{patient}"}, "role": PATIENT_ROLE} for patient in patients]
    if entities:
        event["entity"] = entities
    return event


def _created(type: str, context: AuditContext) -> list[str]:
    return [f"{shown}/{id}" for _, shown, id in context.shown if shown == type][-1:]


def _written(type: str, context: AuditContext) -> list[str]:
    """What a conditional write matched, and what it created."""
    return list(dict.fromkeys(f"{shown}/{id}" for _, shown, id in context.shown if shown == type))


def _is_conditional(request: Request) -> bool:
    """Whether the request is a conditional update, patch or delete."""
    return request.method in ("PUT", "PATCH", "DELETE") and len(request.path) == 1 and request.path[0] in catalog()


def _is_search(request: Request) -> bool:
    """Whether the request is a search, or the history of a type or of the system, which names no resource either."""
    is_history = request.path[-1:] == ("_history",) and len(request.path) < 3
    return (request.method == "GET" and len(request.path) == 1) or request.path[-1:] == ("_search",) or is_history


def _is_operation(request: Request) -> bool:
    return "$" in [step[:1] for step in request.path]


def agents_of(permissions: Permissions | None, address: str, policy: str) -> Agents:
    """Who sent a request from this address, under the policy with this digest."""
    if permissions is None:
        network = {"network": {"address": address, "type": _IP_ADDRESS}} if address else {}
        return _as_json([{"requestor": True, "who": {"display": "unidentified"}, **network}])
    principal = permissions.principal
    name = principal.person.name if principal.person else ""
    return _agents_of(
        principal.username or "", name, principal.fhir_user or "", principal.client_id, principal.patient or "", address, policy
    )


@lru_cache(4096)  # the same for all requests with a token
def _agents_of(username: str, name: str, fhir_user: str, client_id: str, patient: str, address: str, policy: str) -> Agents:
    client = {"display": f"Client {client_id}"}
    first: dict[str, Any] = {"requestor": True, "altId": username or client_id, "who": client, "policy": [_POLICY + policy]}
    if address:
        first["network"] = {"address": address, "type": _IP_ADDRESS}
    agents = [first]
    if username:
        if fhir_user:
            first["who"] = _reference(fhir_user)
        if name:
            first["name"] = name
        agents.append({"requestor": False, "altId": client_id, "who": client, "type": _APPLICATION})
    if patient:
        agents.append({"requestor": False, "who": {"reference": f"Patient/{patient}"}})
    return _as_json(agents)


def _as_json(agents: list[dict[str, Any]]) -> Agents:
    return Agents(msgspec.Raw(msgspec.json.encode(agents)), tuple(patients_named(agents, "who")), agents[0].get("altId", ""))


def patients_named(parts: Iterable[dict[str, Any]], member: str) -> list[str]:
    """The references to patients in this member, a Reference, of agents or entities."""
    return [name for one in parts if member in one and (name := one[member].get("reference", "")).startswith("Patient/")]


def _reference(name: str) -> dict[str, str]:
    """A Reference to ``Type/id``; any other text is only displayed."""
    return {"reference": name} if exact_target(name) else {"display": name}


def _entity(request: Request, is_search: bool, is_operation: bool) -> dict[str, Any]:
    """Return what the request was about: a resource by its reference, a search or operation by its URL (base64)."""
    entity: dict[str, Any] = {}
    names_resource = len(request.path) > 2 or (len(request.path) == 2 and not is_search and not is_operation)
    if names_resource and request.path[0] in catalog() and ID.fullmatch(request.path[1]):
        entity["what"] = {"reference": f"{request.path[0]}/{request.path[1]}"}
    if is_search or is_operation or _is_conditional(request):
        pairs = [(name, "" if name in _SECRET_PARAMETERS else value) for name, value in (*request.query, *_form_fields(request))]
        url = "/".join(request.path) + "?" + format_query(pairs)
        entity["query"] = b64encode(url.encode()).decode()
        entity["role"] = _QUERY_ROLE
    return entity


def _form_fields(request: Request) -> Iterable[tuple[str, str]]:
    """Return the form fields of a search by POST; none if they cannot be read."""
    if request.path[-1:] != ("_search",):
        return ()
    try:
        return request.form()
    except Problem:
        return ()


def bundle_entry(entry: AuditedEntry) -> dict[str, Any]:
    """The entity of a Bundle entry, with its method and, if it is not 0, its own status."""
    details = {"method": entry.request.method} | ({"status": str(entry.status)} if entry.status else {})
    is_operation = _is_operation(entry.request)
    entity = _entity(entry.request, not is_operation and _is_search(entry.request), is_operation)
    return entity | {"detail": [{"type": name, "valueString": text} for name, text in details.items()]}
