"""The chapters of a record's files, and which resources each has.  A type that none names is in the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.display.texts import objects, plain

OTHER: Final = "Other entries"
NAMED: Final = "People, places and medicines named in the record"


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter: ``types`` of its resources; ``categories``: of Observations, those with one of these codes."""

    title: str
    types: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


def _chapter(title: str, *types: str, categories: tuple[str, ...] = ()) -> Chapter:
    return Chapter(title, frozenset(types), frozenset(categories))


CHAPTERS: Final = (
    _chapter("The person", "Patient"),
    _chapter("Family and helpers", "RelatedPerson"),
    _chapter("Health issues", "Condition"),
    _chapter("Allergies", "AllergyIntolerance"),
    _chapter("Medicines", "MedicationRequest", "MedicationStatement", "MedicationDispense", "MedicationAdministration"),
    _chapter("Test results", "DiagnosticReport", "Specimen", "ImagingStudy", categories=("laboratory", "imaging")),
    _chapter("Vaccinations", "Immunization"),
    _chapter("Vital signs", categories=("vital-signs",)),
    _chapter("Visits", "Encounter", "Appointment"),
    _chapter("Procedures", "Procedure", "ServiceRequest"),
    _chapter("Notes and documents", "DocumentReference", "Composition", "QuestionnaireResponse"),
    _chapter("Care team and goals", "CareTeam", "Goal", "CarePlan"),
    _chapter("Family and social history", "FamilyMemberHistory", categories=("social-history",)),
    _chapter("Messages", "Communication"),
    _chapter("Insurance and bills", "Coverage", "Account", "Invoice", "ChargeItem", "Claim", "ClaimResponse", "ExplanationOfBenefit"),
)
_OTHER_OBSERVATIONS: Final = "Test results"


def chapter_of(resource: Mapping[str, Any]) -> str:
    """The title of a resource's chapter."""
    type = str(resource["resourceType"])
    if type != "Observation":
        return next((chapter.title for chapter in CHAPTERS if type in chapter.types), OTHER)
    codes = {plain(coding.get("code")) for category in objects(resource.get("category")) for coding in objects(category.get("coding"))}
    return next((chapter.title for chapter in CHAPTERS if codes & chapter.categories), _OTHER_OBSERVATIONS)
