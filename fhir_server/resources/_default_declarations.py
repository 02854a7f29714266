"""Declarations of the resource types that need no file of their own, made from HL7's definitions and one table."""

from __future__ import annotations

from typing import Final

from fhir_server.resources import definitions
from fhir_server.resources._declaration import ResourceType

CLASSES: Final = {
    "billing": "ChargeItem ClaimResponse Contract Invoice PaymentNotice PaymentReconciliation",
    "careplan": "NutritionOrder RequestGroup",
    "coverage": "CoverageEligibilityRequest CoverageEligibilityResponse EnrollmentRequest EnrollmentResponse",
    "device": "Device DeviceMetric DeviceRequest DeviceUseStatement",
    "familyhistory": "FamilyMemberHistory",
    "group": "Flag Group Linkage List Person",
    "imaging": "ImagingStudy Media",
    "immunization": "ImmunizationEvaluation ImmunizationRecommendation",
    "lab": "MolecularSequence Specimen",
    "medication": "MedicationAdministration MedicationDispense",
    "medication-definition": "MedicationKnowledge Substance",
    "message": "CommunicationRequest",
    "note": "Composition DocumentManifest",
    "slot": "Schedule Slot",
    "survey": "QuestionnaireResponse",
    "task": "Subscription Task",
    "visit": "AppointmentResponse EpisodeOfCare",
    "directory": (
        "ActivityDefinition CapabilityStatement CatalogEntry ChargeItemDefinition CodeSystem CompartmentDefinition ConceptMap"
        " DeviceDefinition EffectEvidenceSynthesis Endpoint EventDefinition Evidence EvidenceVariable ExampleScenario"
        " GraphDefinition ImplementationGuide InsurancePlan Library Measure MedicinalProduct MedicinalProductAuthorization"
        " MedicinalProductContraindication MedicinalProductIndication MedicinalProductIngredient MedicinalProductInteraction"
        " MedicinalProductManufactured MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect"
        " MessageDefinition NamingSystem ObservationDefinition OperationDefinition OrganizationAffiliation PlanDefinition"
        " Questionnaire ResearchDefinition ResearchElementDefinition RiskEvidenceSynthesis SearchParameter SpecimenDefinition"
        " StructureDefinition StructureMap SubstanceNucleicAcid SubstancePolymer SubstanceProtein SubstanceReferenceInformation"
        " SubstanceSourceMaterial SubstanceSpecification TerminologyCapabilities TestReport TestScript ValueSet"
    ),
}

# The compartment parameters behind which the person stands whom a row is about; the rest name those who acted or took part.
ABOUT: Final = ("subject", "patient", "beneficiary", "individual", "actor")

# Types that R4 leaves out of the patient compartment although they may be about one person.
SUBJECTS: Final = {
    "Contract": ("subject",),
    "Device": ("patient",),
    "Group": ("member.entity",),
    "GuidanceResponse": ("subject",),
    "Linkage": ("item.resource",),
    "Task": ("for",),
}

# A row in which one of these stands inherits its sensitivity: the visit, the order, the reason, the department.
CONTEXT: Final = frozenset(
    {
        "Account",
        "Appointment",
        "Claim",
        "Condition",
        "DeviceRequest",
        "Encounter",
        "EpisodeOfCare",
        "HealthcareService",
        "Location",
        "Medication",
        "MedicationRequest",
        "Schedule",
        "ServiceRequest",
    }
)
# Elements that name rows which keep their own sensitivity; the row that names them does not take it over.
PARTS: Final = frozenset({"content", "derivedFrom", "entry.item", "event.detail", "related.ref", "section.entry"})


def declaration(name: str) -> ResourceType:
    """The declaration of a type that has no file; ``other`` data when the table does not list it."""
    named = definitions.references(name)
    subjects = SUBJECTS.get(name) or _subjects(name)
    context = tuple(p for p, targets in named.items() if p not in subjects and p not in PARTS and not CONTEXT.isdisjoint(targets))
    return ResourceType(
        name,
        data_class(name),
        subjects=subjects,
        inherits_labels_from=context,
        label_codes=definitions.codings(name),
        must_be_classified=("medication[x]",) if "medication[x]" in named else (),
        member_references=tuple(path for path in named if path in PARTS),
        hidden_status=frozenset({"entered-in-error"}) if subjects else frozenset(),
    )


def data_class(name: str) -> str:
    """What the policy calls data of a type that has no file."""
    return next((data for data, names in CLASSES.items() if name in names.split()), "other")


def _subjects(name: str) -> tuple[str, ...]:
    codes = definitions.compartment().get(name, ())
    about = [code for code in ABOUT if code in codes]
    found = (p.expression for p in definitions.search_parameters(name) if p.code in about)
    paths = (branch.split(".where(")[0].partition(".")[2] for expression in found for branch in expression.split(" | "))
    return tuple(dict.fromkeys(paths))
