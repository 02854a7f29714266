"""Binary: bytes that belong to what ``securityContext`` names, and to nobody without it (http://hl7.org/fhir/R4/binary.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Binary",
    "note",
    subjects=("securityContext",),
    depends_on=("securityContext",),
)
