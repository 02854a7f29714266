"""The operations that read records, each by GET and by POST: rows of the routing table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.interactions import docref, document, everything, health_cards, lastn, patient_summary
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service

_R4 = "http://hl7.org/fhir/OperationDefinition"
_IPS = "http://hl7.org/fhir/uv/ips/OperationDefinition"
_CARDS = "http://hl7.org/fhir/uv/smart-health-cards-and-links/OperationDefinition"
_US_CORE = "http://hl7.org/fhir/us/core/OperationDefinition"


class RecordOperation(NamedTuple):
    """The path of an operation, its handler, who may ask it, and the canonical of its OperationDefinition.

    ``post``: the handler of POST, if that does more than to read.
    """

    shape: tuple[str, ...]
    handle: Callable[[View, Request, Service], Awaitable[Response]]
    admit: Callable[[Permissions, str], None]
    definition: str
    post: Callable[[Request, Service, AuditContext], Awaitable[Response]] | None = None


OPERATIONS: tuple[RecordOperation, ...] = (
    *(
        RecordOperation(shape, everything.everything, everything.admit, f"{_R4}/{shape[0]}-everything")
        for shape in (
            ("Patient", "{id}", "$everything"),
            ("Patient", "$everything"),
            ("Encounter", "{id}", "$everything"),
            ("Group", "{id}", "$everything"),
        )
    ),
    *(
        RecordOperation(shape, document.document, document.admit, f"{_R4}/Composition-document", document.post)
        for shape in (("Composition", "{id}", "$document"), ("Composition", "$document"))
    ),
    RecordOperation(("Patient", "{id}", "$summary"), patient_summary.summary, patient_summary.admit, f"{_IPS}/summary"),
    RecordOperation(
        ("Patient", "{id}", f"${health_cards.OPERATION}"), health_cards.issue, health_cards.admit, f"{_CARDS}/patient-i-health-cards-issue"
    ),
    RecordOperation(("DocumentReference", "$docref"), docref.docref, docref.admit, f"{_US_CORE}/docref"),
    RecordOperation(("Observation", "$lastn"), lastn.lastn, lastn.admit, f"{_R4}/Observation-lastn"),
)
