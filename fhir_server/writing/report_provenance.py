"""The Provenance of a person's statement: who said it, for whom, with which app (http://hl7.org/fhir/R4/provenance.html)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fhir_server.clock import instant_text
from fhir_server.writing.draft import Draft, parse_draft

_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_ACT: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_ROLE: Final = "http://terminology.hl7.org/CodeSystem/v3-RoleClass"
_CLIENT: Final = "https://fhir-server.example/ig/client"


def report_provenance(target: str, *, created: bool, speaker: str, patient: str, client_id: str, now: int) -> Draft:
    """The Provenance of ``target`` (``Type/id``).

    ``speaker``    the ``Type/id`` of the person who said it
    ``patient``    the ``Patient/id`` for whom a proxy said it, which adds the patient as an agent; "" for a patient
    ``client_id``  the app that sent it
    ``now``        in microseconds since 1970 UTC
    """
    author: dict[str, Any] = {"type": _concept(_AGENT, "author"), "who": {"reference": speaker}}
    agents = [
        author,
        {"type": _concept(_AGENT, "assembler"), "who": {"type": "Device", "identifier": {"system": _CLIENT, "value": client_id}}},
    ]
    if patient:
        author["onBehalfOf"] = {"reference": patient}
        agents.insert(1, {"role": [_concept(_ROLE, "PAT")], "who": {"reference": patient}})
    resource = {
        "resourceType": "Provenance",
        "target": [{"reference": target}],
        "recorded": instant_text(now),
        "activity": _concept(_ACT, "CREATE" if created else "UPDATE"),
        "agent": agents,
    }
    return parse_draft(msgspec.json.encode(resource), "Provenance")


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
