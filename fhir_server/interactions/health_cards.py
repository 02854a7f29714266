"""``Patient/[id]/$health-cards-issue``: proof of vaccination as SMART Health Cards.

https://hl7.org/fhir/uv/smart-health-cards-and-links/OperationDefinition-patient-i-health-cards-issue.html.  The policy says who may ask
it.  A card holds vaccinations that the caller sees, so it differs between callers as their Views do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from fhir_server import budget, fhir_dates, jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import health_card_content, vaccine_diseases
from fhir_server.interactions.health_card_content import IDENTITY, Dose
from fhir_server.interactions.messages import Request, Response
from fhir_server.interactions.operation_parameters import Asked, json_response, read_parameters
from fhir_server.interactions.service import Service
from fhir_server.resources import definitions
from fhir_server.search import query as queries
from fhir_server.search.filters import AllOf, OfPatient

OPERATION: Final = "health-cards-issue"
_VACCINATIONS: Final = "Immunization"
_MOST: Final = 1000  # vaccinations of a person
_KINDS: Final = {"credentialType": "texts", "credentialValueSet": "texts", "includeIdentityClaim": "texts", "_since": "text"}
_PREFIXES: Final = ("https://smarthealth.cards", "http://hl7.org/fhir/StructureDefinition/")
_FORMER_TYPES: Final = {"#immunization": "Immunization", "#laboratory": "Observation", "#health-card": "Patient"}
_IN_A_CARD: Final = frozenset({"Patient", _VACCINATIONS})
_UNKNOWN_SET: Final = "The server has no value set of vaccines {}."


async def issue(view: View, request: Request, service: Service) -> Response:
    """The cards, as Parameters; none without a vaccination that fits.

    Raises Problem ``forbidden``, ``not_found``, ``gone``, ``invalid`` or ``too_costly``.
    """
    admit(view.permissions, request.path[0])
    asked = await read_parameters(request, service, _KINDS)
    wanted, value_sets, claims = _types(asked), _value_sets(asked), _claims(asked)
    patient = await view.read(*request.path[:2])
    person = health_card_content.identity(jsontext.parse(patient.body), claims)
    found: list[tuple[Dose, ...]] = []
    if person is not None and wanted <= _IN_A_CARD:
        doses = await _doses(view, patient.id, asked.text("_since"), service.base)
        found = [card for card in health_card_content.cards(doses) if all(any(one.code in codes for one in card) for codes in value_sets)]
    issuer, make = service.cards, health_card_content.payload
    signed = await issuer.sign(await budget.each(lambda card: make(issuer.url, view.now, person or {}, card), found)) if found else []
    credentials = [{"name": "verifiableCredential", "valueString": card} for card in signed]
    links = [link for index, card in enumerate(found) for link in _links(index, patient.id, card, service.base)]
    return json_response({"resourceType": "Parameters", **({"parameter": [*credentials, *links]} if signed else {})})


def admit(permissions: Permissions, type: str) -> None:
    """Require scopes for the patient and the vaccinations, and that the policy lets the caller ask.  Raises Problem ``forbidden``."""
    permissions.require(type, "r")
    if not permissions.scopes(_VACCINATIONS, "s"):
        permissions.require(_VACCINATIONS, "r")
    if not permissions.may_ask(OPERATION):
        raise Problem("forbidden", "This caller may not ask for health cards.")


async def _doses(view: View, patient: str, since: str, base: str) -> list[Dose]:
    """The vaccinations that the caller sees and a card may have, those since a time if there is one.  Raises Problem ``invalid``."""
    if since and fhir_dates.parse(since) is None:
        raise Problem("invalid", "The parameter _since must be a date or time, such as 2026-03-01.")
    given = [("status", "completed"), *([("date", f"ge{since}")] if since else [])]
    where = AllOf((OfPatient(frozenset({patient})), queries.condition(_VACCINATIONS, given, view.now, base)))
    rows = await view.find_included(_VACCINATIONS, where, _MOST + 1)
    if len(rows) > _MOST:
        raise Problem("too_costly", f"The record has more than {_MOST} vaccinations: narrow the request with _since.")
    doses = await budget.each(lambda row: health_card_content.dose(jsontext.parse(row.body)), rows)
    return [one for one in doses if one is not None]


def _types(asked: Asked) -> frozenset[str]:
    """The types of which a card has to have resources.  Raises Problem ``invalid``."""
    given = asked.all("credentialType")
    if not given:
        text = f"${OPERATION} needs the parameter credentialType, such as Immunization."
        raise Problem("invalid", text, (Issue("required", text),))
    return frozenset(_type(text) for text in given)


def _type(text: str) -> str:
    name = text
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = _FORMER_TYPES.get(name, name)
    if name not in definitions.types():
        raise Problem("invalid", f"The credentialType {text[:80]!r} is no resource type.")
    return name


def _value_sets(asked: Asked) -> list[frozenset[str]]:
    """The codes of each value set of which a card has to have a vaccine.  Raises Problem ``invalid``."""
    found = []
    for url in asked.all("credentialValueSet"):
        codes = vaccine_diseases.codes_of(url)
        if codes is None:
            raise Problem("invalid", _UNKNOWN_SET.format(repr(url[:200])))
        found.append(codes)
    return found


def _claims(asked: Asked) -> Collection[str]:
    """The elements that say whose card it is.  Raises Problem ``invalid`` for others."""
    allowed = {f"Patient.{name}": name for name in IDENTITY}
    given = asked.all("includeIdentityClaim")
    if not set(given) <= set(allowed):
        raise Problem("invalid", f"The identity claims of a card are {' and '.join(allowed)} only.")
    return [allowed[claim] for claim in given] or IDENTITY


def _links(index: int, patient: str, card: tuple[Dose, ...], base: str) -> Iterator[dict[str, Any]]:
    """Which resources of this server those in a card were."""
    for number, name in enumerate((f"Patient/{patient}", *(f"{_VACCINATIONS}/{one.id}" for one in card))):
        yield {
            "name": "resourceLink",
            "part": [
                {"name": "vcIndex", "valueInteger": index},
                {"name": "bundledResource", "valueUri": f"resource:{number}"},
                {"name": "hostedResource", "valueUri": f"{base}/{name}"},
            ],
        }
