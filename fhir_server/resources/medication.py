"""Medication: the definition of a drug; it belongs to no patient (http://hl7.org/fhir/R4/medication.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Medication",
    "medication-definition",
    inherits_labels_from=("ingredient.item[x]",),
    seen_through=(
        ("MedicationRequest", "medication"),
        ("MedicationStatement", "medication"),
        ("MedicationDispense", "medication"),
        ("MedicationAdministration", "medication"),
    ),
)
