"""Appointment: it belongs to each patient who takes part and inherits the category of its department (http://hl7.org/fhir/R4/appointment.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Appointment",
    "visit",
    subjects=("participant.actor",),
    shared_rows="each",
    inherits_labels_from=("basedOn", "slot", "participant.actor", "reasonReference"),
    departments=("participant.actor", "serviceType", "specialty", "serviceCategory", "appointmentType"),
)
