"""Declarations of the resource types without a file of their own, derived from HL7's definitions and the tables below."""

from __future__ import annotations

from typing import Final

from fhir_server.resources import definitions
from fhir_server.resources._declaration import ResourceType

DATA_CLASSES: Final = {
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

# The compartment parameters that name the patients a resource is about; the others name those who acted or took part.
SUBJECT_PARAMETERS: Final = ("subject", "patient", "beneficiary", "individual", "actor")

# Types outside of R4's patient compartment that may still be about one patient.
SUBJECTS: Final = {
    "Contract": ("subject",),
    "Device": ("patient",),
    "Group": ("member.entity",),
    "GuidanceResponse": ("subject",),
    "Linkage": ("item.resource",),
    "Task": ("for",),
}

# Further elements by which a resource belongs to a department.
DEPARTMENTS: Final = {
    "Composition": ("author", "custodian"),
    "EpisodeOfCare": ("careManager", "managingOrganization"),
    "Schedule": ("serviceCategory", "serviceType", "specialty"),
    "Slot": ("serviceCategory", "serviceType", "specialty"),
}

# What is known of a specimen's results is known of the specimen.
INHERITS_FROM_REFERRERS: Final = {"Specimen": ("DiagnosticReport.specimen", "Observation.specimen")}

# A resource inherits the categories of the resources of these types that it refers to: visit, order, reason, department.
CONTEXT_TYPES: Final = frozenset(
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
# The same if nothing else may stand there: many elements admit a device among persons.
ONLY_CONTEXT_TYPES: Final = frozenset({"CareTeam", "Device", "DeviceMetric", "Slot", "Specimen"})
# A resource inherits the category of the department where these may stand.
DEPARTMENT_TYPES: Final = frozenset({"HealthcareService", "Location"})
# Elements that refer to members. A resource does not inherit the categories of its members.
MEMBER_PATHS: Final = frozenset(
    {
        "about",
        "content",
        "derivedFrom",
        "entry.item",
        "evaluatedResource",
        "event.detail",
        "focus",
        "implicated",
        "investigation.item",
        "lineItem.chargeItem[x]",
        "member.entity",
        "payload.content[x]",
        "related.ref",
        "section.entry",
        "section.focus",
    }
)

# Elements that sum up the members, besides those of every type.
SUMMARIES: Final = {
    "ClaimResponse": ("total", "payment", "adjudication"),
    "ClinicalImpression": ("description", "summary"),
    "CommunicationRequest": ("payload",),
    "DetectedIssue": ("detail",),
    "DocumentManifest": ("description",),
    "Group": ("quantity", "characteristic"),
    "Invoice": ("totalPriceComponent", "totalNet", "totalGross"),
    "MeasureReport": ("group",),
    "Task": ("description", "input", "output"),
}

# Resources that repeat what the resource that they answer says, and mean nothing without it.
DEPENDS_ON: Final = {"ClaimResponse": ("request",), "PaymentNotice": ("request", "response")}


def declaration(name: str) -> ResourceType:
    """The declaration of a type without a file; its data class is ``other`` if the table does not list it."""
    references = definitions.references(name)
    subjects = SUBJECTS.get(name) or _subjects(name)
    others = {path: targets for path, targets in references.items() if path not in subjects and path not in MEMBER_PATHS}
    context = tuple(path for path, targets in others.items() if _is_context(targets))
    return ResourceType(
        name,
        data_class(name),
        subjects=subjects,
        inherits_labels_from=context,
        departments=tuple(path for path, targets in others.items() if not DEPARTMENT_TYPES.isdisjoint(targets)) + DEPARTMENTS.get(name, ()),
        member_references=tuple(nested for path in references if path in MEMBER_PATHS for nested in _nested(path)),
        summaries=SUMMARIES.get(name, ()),
        depends_on=DEPENDS_ON.get(name, ()),
        inherits_from_referrers=INHERITS_FROM_REFERRERS.get(name, ()),
    )


def _nested(path: str) -> tuple[str, ...]:
    """The path, and those of the same element in sections of sections."""
    return tuple("section." * depth + path for depth in range(4)) if path.startswith("section.") else (path,)


def _is_context(targets: tuple[str, ...]) -> bool:
    return not CONTEXT_TYPES.isdisjoint(targets) or set(targets) <= ONLY_CONTEXT_TYPES


def data_class(name: str) -> str:
    """The data class of a type without a file."""
    return next((data for data, names in DATA_CLASSES.items() if name in names.split()), "other")


def _subjects(name: str) -> tuple[str, ...]:
    codes = definitions.compartments()["Patient"].get(name, ())
    subject_codes = [code for code in SUBJECT_PARAMETERS if code in codes]
    expressions = (p.expression for p in definitions.search_parameters(name) if p.code in subject_codes)
    paths = (branch.split(".where(")[0].partition(".")[2] for expression in expressions for branch in expression.split(" | "))
    return tuple(dict.fromkeys(paths))
