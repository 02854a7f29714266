"""Describes scopes in the words of the consent page."""

from __future__ import annotations

import re
from typing import Final

from fhir_server.smart.core.persons import Role
from fhir_server.smart.core.scopes import Scope

_TYPES: Final = {
    "*": "All kinds of health information",
    "Account": "Bills and balances",
    "AllergyIntolerance": "Allergies",
    "Appointment": "Appointments",
    "CarePlan": "Care plans",
    "CareTeam": "Care team",
    "ChargeItem": "Charges",
    "Claim": "Insurance claims",
    "Communication": "Messages",
    "Condition": "Health problems and diagnoses",
    "Consent": "Sharing choices",
    "Coverage": "Insurance coverage",
    "Device": "Implants and devices",
    "DiagnosticReport": "Lab, imaging and other reports",
    "DocumentReference": "Notes and documents",
    "Encounter": "Visits",
    "ExplanationOfBenefit": "Insurance statements",
    "FamilyMemberHistory": "Family history",
    "Goal": "Goals",
    "ImagingStudy": "Imaging studies",
    "Immunization": "Vaccinations",
    "Invoice": "Bills",
    "Location": "Locations of care",
    "MedicationDispense": "Medications dispensed",
    "MedicationRequest": "Prescriptions",
    "MedicationStatement": "Medications taken",
    "Observation": "Lab results and other observations",
    "Organization": "Organizations",
    "Patient": "Name, birth date and contact details",
    "Practitioner": "Doctors and other staff",
    "Procedure": "Procedures",
    "Provenance": "Where information came from",
    "QuestionnaireResponse": "Questionnaire answers",
    "RelatedPerson": "Family and representatives",
    "ServiceRequest": "Orders and referrals",
    "Specimen": "Samples",
}
_VERBS: Final = {"r": "read", "s": "read", "c": "add", "u": "change", "d": "delete"}
_CATEGORY: Final = re.compile(r"(?:[^|,\\$]+\|)?[a-z][a-z-]*")
_ORDER: Final = ("read", "add", "change", "delete")


def describe_scope(scope: Scope, role: Role) -> str:
    """Return a description such as ``Lab results and other observations (only laboratory): read``.

    For staff, a ``user/`` scope is described as covering every record that they may open.
    """
    subject = _TYPES.get(scope.type) or _split_type_name(scope.type)
    only = f" (only {' and '.join(_describe_condition(*pair) for pair in scope.query)})" if scope.query else ""
    reach = ", in every record you may open" if scope.level == "user" and role != "patient" else ""
    verbs = {_VERBS[interaction] for interaction in scope.interactions}
    return f"{subject}{only}{reach}: {_join_words([verb for verb in _ORDER if verb in verbs])}"


def _split_type_name(type: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type).capitalize()


def _describe_condition(name: str, value: str) -> str:
    """Describe a condition on categories in words.  Any other condition is shown unchanged, so that nothing is left out."""
    categories = value.split(",")
    is_plain = name == "category" and all(_CATEGORY.fullmatch(category) for category in categories)
    words = [category.rpartition("|")[2].replace("-", " ") for category in categories]
    return " or ".join(words) if is_plain else f"{name}={value}"


def _join_words(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
