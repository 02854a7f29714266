"""The records that a signed-in person may open: few for a personal account, many for a clinician, whose are searched."""

from __future__ import annotations

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import Person, RecordChoice


def are_searched(person: Person) -> bool:
    """Whether the person has so many records that they are searched (``charts``) and not listed (``records``)."""
    return person.role == "clinician"


async def find(smart: SmartContext, person: Person, patient: str) -> RecordChoice | None:
    """Return the record of this Patient id, if the person may open it now."""
    if are_searched(person):
        return await smart.charts.one(person, patient, smart.now())
    return next((choice for choice in await smart.records(person, smart.now()) if choice.patient == patient), None)
