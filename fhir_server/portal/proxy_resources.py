"""The resources of a new grant, in the shape of the profile ``proxy-consent``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from fhir_server.clock import instant_text
from fhir_server.consent.provisions import KIND, LEVEL
from fhir_server.portal.wording import RELATIONSHIPS
from fhir_server.resources.models import model
from fhir_server.writing.draft import Draft, parse_draft

_IG: Final = "https://fhir-server.example/ig"
_ROLE: Final = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
_SCOPE: Final = "http://terminology.hl7.org/CodeSystem/consentscope"


@dataclass(frozen=True, slots=True)
class SharingRequest:
    """What an adult asks for: whom to let in, how far, and until when (the last day; None: until she ends it)."""

    name: str
    relationship: str
    level: str
    until: date | None = None


def related_person(patient: str, wish: SharingRequest) -> Draft:
    """The RelatedPerson that the other person will be."""
    given: dict[str, Any] = {"active": True, "patient": {"reference": f"Patient/{patient}"}, "name": [{"text": wish.name}]}
    if wish.relationship:
        given["relationship"] = [_coded(_ROLE, wish.relationship, RELATIONSHIPS[wish.relationship][1])]
    return _draft("RelatedPerson", given)


def consent(patient: str, related: str, wish: SharingRequest, *, now: int, today: date, policy: str, authority: str) -> Draft:
    """The Consent by which the patient lets this RelatedPerson in under the policy of that name."""
    period = {"start": today.isoformat()} | ({"end": wish.until.isoformat()} if wish.until else {})
    grantee = {"role": _coded(_ROLE, "GRANTEE", "grantee"), "reference": {"reference": f"RelatedPerson/{related}"}}
    given = {
        "meta": {"profile": [f"{_IG}/StructureDefinition/proxy-consent"]},
        "status": "active",
        "scope": _coded(_SCOPE, "patient-privacy", "Privacy Consent"),
        "category": [
            _coded("http://loinc.org", "59284-0", "Consent Document"),
            _coded(KIND, "proxy-adult"),
            _coded(LEVEL, wish.level),
        ],
        "patient": {"reference": f"Patient/{patient}"},
        "dateTime": instant_text(now),
        "performer": [{"reference": f"Patient/{patient}"}],
        "policy": [{"authority": authority, "uri": f"{_IG}/policy/{policy}"}],
        "provision": {"provision": [{"type": "permit", "period": period, "actor": [grantee]}]},
    }
    return _draft("Consent", given)


def _coded(system: str, code: str, display: str = "") -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def _draft(type: str, given: dict[str, Any]) -> Draft:
    return parse_draft(model(type)(**given).model_dump_json().encode(), type)
