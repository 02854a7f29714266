"""What a SMART Health Card of vaccinations holds: which of the vaccinations that a caller sees, of whom, in which form.

https://hl7.org/fhir/uv/smart-health-cards-and-links/cards-specification.html: a Bundle without anything that a verifier does not need.
The name and the birth date say whose card it is.  Of a vaccination there are the vaccine, the date and the lot: what every caller with
a card may see, so that a card does not tell who asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fhir_server.consent.code_systems import CVX, normalize_code
from fhir_server.consent.security_labels import is_persons_report
from fhir_server.interactions.vaccine_diseases import DISEASES, Disease, against

Json = Mapping[str, Any]
IDENTITY: Final = ("name", "birthDate")
"""The elements of Patient that a card may have."""

_TYPE: Final = "https://smarthealth.cards#"
_FHIR: Final = "4.0.1"
_ORIGINS: Final = "http://terminology.hl7.org/CodeSystem/immunization-origin"
_VERIFIED: Final = frozenset({"provider", "record", "jurisdiction"})
_USES: Final = ("official", "usual", "")  # of names, the best first


class CardIssuer(NamedTuple):
    """Who issues cards.  ``url``: below it the keys are published; ``sign``: makes the cards of payloads."""

    url: str
    sign: Callable[[Sequence[bytes]], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Dose:
    """A vaccination of a card.  ``code``: of the vaccine (CVX); ``day``: a date or instant as the record has it; ``lot``: "" if unknown."""

    id: str
    code: str
    day: str
    lot: str


def dose(immunization: Json) -> Dose | None:
    """A vaccination as it is in a card; None if no card may have it.

    It was given, is known by date and vaccine, and the institution vouches for it: it gave it, or has it from a provider's record or
    a registry.  What a person reported or remembers, and a dose that does not count, is in no card.
    """
    resource, day = immunization, immunization.get("occurrenceDateTime")
    if resource.get("status") != "completed" or not isinstance(day, str) or resource.get("isSubpotent") is True:
        return None
    if _is_reported(resource) or not (resource.get("primarySource") is True or _is_verified(resource)):
        return None
    codes = {code for code in _cvx(resource.get("vaccineCode", {})) if against([code])}
    if len(codes) != 1:
        return None
    return Dose(str(resource["id"]), codes.pop(), day, str(resource.get("lotNumber", "")))


def _is_reported(resource: Json) -> bool:
    return any(map(is_persons_report, resource.get("meta", {}).get("tag", ())))


def _is_verified(resource: Json) -> bool:
    codings = resource.get("reportOrigin", {}).get("coding", ())
    return any(coding.get("system") == _ORIGINS and coding.get("code") in _VERIFIED for coding in codings)


def _cvx(concept: Json) -> Iterable[str]:
    for coding in concept.get("coding", ()):
        system, code = normalize_code(str(coding.get("system", "")), str(coding.get("code", "")))
        if system == CVX:
            yield code.zfill(2)


def cards(doses: Iterable[Dose]) -> list[tuple[Dose, ...]]:
    """The doses of each card, the oldest first: one card of each disease; diseases with the same doses share theirs."""
    ordered = sorted(doses, key=lambda one: (one.day, one.code, one.id))
    of_each = [tuple(one for one in ordered if one.code in disease.codes) for disease in DISEASES]
    return list(dict.fromkeys(found for found in of_each if found))


def diseases(doses: Sequence[Dose]) -> tuple[Disease, ...]:
    """The diseases that a card is about."""
    return against(one.code for one in doses)


def identity(patient: Json, claims: Collection[str]) -> dict[str, Any] | None:
    """The elements of Patient in a card, of those in ``claims``; None if the caller does not see one of them."""
    found: dict[str, Any] = {}
    if "name" in claims:
        found["name"] = [name] if (name := _name(patient)) else None
    if "birthDate" in claims:
        found["birthDate"] = patient.get("birthDate")
    return found if found and all(found.values()) else None


def _name(patient: Json) -> dict[str, Any]:
    names = [name for use in _USES for name in patient.get("name", ()) if name.get("use", "") == use]
    for name in names:
        parts = {part: name[part] for part in ("family", "given", "suffix") if name.get(part)}
        if parts or "text" in name:
            return parts or {"text": name["text"]}
    return {}


def payload(issuer: str, now: int, person: Json, doses: Sequence[Dose]) -> bytes:
    """The minified payload of a card.  ``issuer``: the URL below which the keys are; ``now``: in microseconds since 1970 UTC."""
    resources: list[Json] = [{"resourceType": "Patient", **person}, *map(_immunization, doses)]
    entries = [{"fullUrl": f"resource:{number}", "resource": resource} for number, resource in enumerate(resources)]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    types = ["health-card", "immunization", *(["covid19"] if any(one.slug == "covid-19" for one in diseases(doses)) else [])]
    credential = {"type": [_TYPE + name for name in types], "credentialSubject": {"fhirVersion": _FHIR, "fhirBundle": bundle}}
    claims = {"iss": issuer, "nbf": now // 1_000_000, "vc": credential}
    return json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()


def _immunization(one: Dose) -> dict[str, Any]:
    return {
        "resourceType": "Immunization",
        "status": "completed",
        "vaccineCode": {"coding": [{"system": CVX, "code": one.code}]},
        "patient": {"reference": "resource:0"},
        "occurrenceDateTime": one.day,
        **({"lotNumber": one.lot} if one.lot else {}),
    }
