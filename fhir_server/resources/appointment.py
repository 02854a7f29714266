"""Appointment: it belongs to each patient who takes part and inherits the category of its department (http://hl7.org/fhir/R4/appointment.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Appointment",
    "visit",
    subjects=("participant.actor",),
    shared_rows="each",
    inherits_labels_from=("basedOn", "slot", "participant.actor", "reasonReference"),
    label_codes=("serviceType", "specialty", "appointmentType", "serviceCategory", "reasonCode", "cancelationReason", "participant.type"),
    must_be_classified=("serviceType", "specialty", "appointmentType"),
    hidden_status=frozenset({"entered-in-error"}),
    departments=("participant.actor", "serviceType", "specialty", "serviceCategory", "appointmentType"),
)
