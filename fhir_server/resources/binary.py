"""Binary: it has the patients and labels of its ``securityContext``; without one it belongs to no patient (http://hl7.org/fhir/R4/binary.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Binary",
    "note",
    subjects=("securityContext",),
    depends_on=("securityContext",),
)
