"""Describes scopes in the words of the consent page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fhir_server.smart.core.persons import Role
from fhir_server.smart.core.scopes import Scope

_TYPES: Final = {
    "*": "All kinds of health information",
    "Account": "Bills and balances",
    "AllergyIntolerance": "Allergies",
    "Appointment": "Appointments",
    "Basic": "Settings and notes that the app keeps for you",
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
    "Subscription": "Messages to the app's server when something changes",
}
# What patients and proxies add of these types
_WRITTEN_BY_PATIENTS: Final = {
    "Immunization": "Vaccinations given elsewhere",
    "Observation": "Home readings, habits and symptoms",
}
_VERBS: Final = {"r": "read", "s": "read", "c": "add", "u": "change", "d": "delete"}
_CATEGORY: Final = re.compile(r"(?:[^|,\\$]+\|)?[a-z][a-z-]*")
_REACH: Final = ", in every record you may open"
_ORDER: Final = ("read", "add", "change", "delete")


class ScopeWords(NamedTuple):
    """A scope on the consent page: a line, and a list of what it covers in detail, which is empty if the line says all."""

    line: str
    details: tuple[str, ...] = ()


def describe_scope(scope: Scope, role: Role) -> str:
    """Return a description such as ``Lab results and other observations (only laboratory): read``.

    For staff, a ``user/`` scope is described as covering every record that they may open.
    """
    writes_only = not set(scope.interactions) & set("rs")
    written = _WRITTEN_BY_PATIENTS.get(scope.type) if writes_only and role == "patient" else None
    subject = written or _TYPES.get(scope.type) or _split_type_name(scope.type)
    only = f" (only {' and '.join(_describe_condition(*pair) for pair in scope.query)})" if scope.query else ""
    reach = _REACH if scope.level == "user" and role != "patient" else ""
    verbs = {_VERBS[interaction] for interaction in scope.interactions}
    return f"{subject}{only}{reach}: {_join_words([verb for verb in _ORDER if verb in verbs])}"


def describe_wildcard(scopes: Sequence[Scope], role: Role) -> ScopeWords:
    """Describe the scopes that are granted for one wildcard scope: at most one that reads, and one for each type that it writes."""
    reading = [scope for scope in scopes if scope.type == "*"]
    writing = [scope for scope in scopes if scope.type != "*"]
    if not writing:
        return ScopeWords(describe_scope(scopes[0], role))
    letters = "".join(letter for letter in "cud" if any(letter in scope.interactions for scope in writing))
    summary = f"Some kinds of health information: {_join_words([_VERBS[letter] for letter in letters])}"
    if reading:
        summary = f"{describe_scope(reading[0], role)}. {summary}"
    return ScopeWords(summary, describe_granted(writing, role))


def describe_granted(scopes: Iterable[Scope], role: Role) -> tuple[str, ...]:
    """Describe granted scopes, those together that let an app write one type each, and write it in the same way."""
    found: dict[str, list[str]] = {}
    for scope in scopes:
        subject, _, verbs = describe_scope(scope, role).rpartition(": ")
        is_plain = scope.type != "*" and not scope.query and not set(scope.interactions) & set("rs")
        found.setdefault(f"{scope.level}: {verbs}" if is_plain else scope.text, []).append(f"{subject}: {verbs}")
    return tuple(_merge(texts) for texts in found.values())


def _merge(texts: list[str]) -> str:
    """One description for scopes that say the same of different types."""
    if len(texts) == 1:
        return texts[0]
    subjects = [text.rpartition(": ")[0].removesuffix(_REACH) for text in texts]
    reach = _REACH if all(_REACH in text for text in texts) else ""
    return f"{'; '.join(subjects)}{reach}: {texts[0].rpartition(': ')[2]}"


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
