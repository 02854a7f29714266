"""Basic: what no other type holds; also the state that a SMART app keeps for one person (http://hl7.org/fhir/R4/basic.html)."""

from typing import Final

from fhir_server.resources._declaration import ResourceType

APP_STATE_SOURCE: Final = "urn:smart-app-state:"
"""How ``meta.source`` of app state begins; the rest identifies the app and the person who own the state."""

TYPE = ResourceType(
    "Basic",
    "other",
    by_source={APP_STATE_SOURCE: "app-state"},
    subjects=("subject",),
)
