"""Builds and reads the resources of a proxy grant: the RelatedPerson, and the Consent in the profile ``proxy-consent``.

Uses the typed models of :mod:`fhir_server.resources.models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.clock import instant_text
from fhir_server.consent.provisions import KIND, LEVEL
from fhir_server.portal.wording import RELATIONSHIPS
from fhir_server.resources.models import model
from fhir_server.writing.draft import Draft, parse_draft

_IG: Final = "https://fhir-server.example/ig"
_ROLE: Final = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
_SCOPE: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
_UNNAMED: Final = "Unnamed person"


@dataclass(frozen=True, slots=True)
class SharingRequest:
    """What the sharing form asks for.

    ``name``          the other person's name
    ``relationship``  a code of :data:`~fhir_server.portal.wording.RELATIONSHIPS`, or ""
    ``level``         a code of the CodeSystem proxy-level
    ``until``         the last day of access; None: until the patient ends it
    ``taker``         the user name of the only account that may use the code; "" for any
    ``born``          the birth date that must be entered with the code; None for none
    """

    name: str
    relationship: str
    level: str
    until: date | None = None
    taker: str = ""
    born: date | None = None


def build_related_person(patient: str, request: SharingRequest) -> Draft:
    """Build the RelatedPerson for the person who gets access to the record of ``patient``."""
    resource = model("RelatedPerson")(active=True, patient=_reference("Patient", patient), name=[model("HumanName")(text=request.name)])
    if request.relationship:
        resource.relationship = [_concept(_ROLE, request.relationship, RELATIONSHIPS[request.relationship][1])]
    return _draft(resource)


def build_consent(
    patient: str, related_person_id: str, request: SharingRequest, *, now: int, today: date, policy: str, authority: str
) -> Draft:
    """Build the Consent by which ``patient`` gives the RelatedPerson access.

    ``now``        microseconds since 1970 UTC
    ``today``      the first day of access
    ``policy``     name of the policy in force, ``authority`` the URL of the server that applies it
    """
    grantee = model("ConsentProvisionActor")(
        role=_concept(_ROLE, "GRANTEE", "grantee"), reference=_reference("RelatedPerson", related_person_id)
    )
    permit = model("ConsentProvision")(type="permit", period=model("Period")(start=today, end=request.until), actor=[grantee])
    resource = model("Consent")(
        meta=model("Meta")(profile=[f"{_IG}/StructureDefinition/proxy-consent"]),
        status="active",
        scope=_concept(_SCOPE, "patient-privacy", "Privacy Consent"),
        category=[
            _concept("http://loinc.org", "59284-0", "Consent Document"),
            _concept(KIND, "proxy-adult"),
            _concept(LEVEL, request.level),
        ],
        patient=_reference("Patient", patient),
        dateTime=instant_text(now),
        performer=[_reference("Patient", patient)],
        policy=[model("ConsentPolicy")(authority=authority, uri=f"{_IG}/policy/{policy}")],
        provision=model("ConsentProvision")(provision=[permit]),
    )
    return _draft(resource)


def with_level(categories: bytes, level: str) -> bytes:
    """Return the categories of a proxy grant's Consent with another level.  Those that name no level stay as they are written."""
    kept = [left for item in jsontext.items(categories) if (left := _without_level(item))]
    return b"[" + b",".join([*kept, jsontext.dumps(_concept(LEVEL, level).model_dump())]) + b"]"


def _without_level(item: bytes) -> bytes:
    """A category without the level that it names; empty if it names nothing else."""
    concept = jsontext.parse(item)
    codings = concept.get("coding", ())
    left = [coding for coding in codings if coding.get("system") != LEVEL]
    if len(left) == len(codings):
        return item
    return jsontext.dumps(concept | {"coding": left}) if left else b""


def describe_person(resource: Mapping[str, Any]) -> str:
    """Return the name of a RelatedPerson with its relationship to the patient, such as "Sam Standard (brother or sister)"."""
    try:
        person = model("RelatedPerson").model_validate({name: resource[name] for name in _SHOWN if name in resource})
    except ValueError:  # the models are stricter than the API, for example about dates
        return _UNNAMED
    codes = [coding.code for concept in person.relationship or () for coding in concept.coding or ()]
    relationship = next((RELATIONSHIPS[code][0].lower() for code in codes if code in RELATIONSHIPS), "")
    return _name(person) + (f" ({relationship})" if relationship else "")


_SHOWN: Final = ("patient", "name", "relationship")


def _name(person: Any) -> str:
    if not person.name:
        return _UNNAMED
    name = person.name[0]
    return str(name.text or " ".join(filter(None, [*(name.given or ()), name.family])).strip() or _UNNAMED)


def _reference(type: str, id: str) -> Any:
    return model("Reference")(reference=f"{type}/{id}")


def _concept(system: str, code: str, display: str | None = None) -> Any:
    return model("CodeableConcept")(coding=[model("Coding")(system=system, code=code, display=display)])


def _draft(resource: Any) -> Draft:
    return parse_draft(resource.model_dump_json().encode(), resource.get_resource_type())
