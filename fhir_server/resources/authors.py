"""Which elements of a resource say who says it, asked for it or did it, by HL7's definitions.

An element speaks for somebody if it may refer to a person or an organization and is not one of those that only name somebody:
the subject, a recipient, who is asked to act.
"""

from __future__ import annotations

import functools
from typing import Final

from fhir_server.resources import definitions

SPEAKERS: Final = frozenset({"Practitioner", "PractitionerRole", "Patient", "RelatedPerson", "Organization"})
"""Types that can say something."""

# Elements that name somebody who says nothing by it.
_NAMED: Final = frozenset({
    "subject", "patient", "for", "beneficiary", "individual", "candidate", "subscriber", "policyHolder", "guarantor.party",
    "recipient", "restriction.recipient", "receiver", "deliverTo", "destination.receiver", "destination.target", "owner",
    "participant.actor", "participant.member", "participant.individual", "participant.onBehalfOf", "member.entity", "managingEntity",
    "provider", "careTeam.provider", "item.provider", "insurer", "payor", "payee", "payee.party", "provision.actor.reference",
    "managingOrganization", "organization", "generalPractitioner", "contact.organization", "link.other", "link.target",
    "serviceProvider", "manufacturer", "supplier", "activity.detail.performer", "dispenseRequest.performer", "action.participant",
    "context.sourcePatientInfo",
})  # fmt: skip
# In these types ``performer`` is who is asked to act.
_REQUESTS: Final = frozenset({"DeviceRequest", "MedicationRequest", "ServiceRequest"})
# Elements in which a person's own statement names the person.
_STATED_IN: Final = ("recorder", "asserter", "author", "sender", "requester", "source", "informationSource", "expressedBy", "operator")
_PERFORMED_BY_SPEAKER: Final = frozenset({"Consent", "Observation"})
# Elements by which a member of staff says something in a name; the others name who did or asked for something.
_SIGNED_IN: Final = frozenset({
    "recorder", "asserter", "author", "sender", "source", "informationSource", "enterer", "section.author", "attester.party",
    "authenticator", "mitigation.author", "suspectEntity.causality.author", "agent.who", "source.observer",
})  # fmt: skip
QUOTED: Final = frozenset({"asserter", "source", "informationSource"})
"""Elements in which staff name the patient, or a person close to the patient, whom they quote."""


@functools.cache
def speaking(type: str) -> tuple[str, ...]:
    """The paths of the elements, without the type's name, that say who says, asks for or does something."""
    return tuple(
        path
        for path, targets in definitions.references(type).items()
        if not SPEAKERS.isdisjoint(targets)
        and "Resource" not in targets
        and path not in _NAMED
        and not (path == "performer" and type in _REQUESTS)
    )


@functools.cache
def signed(type: str) -> tuple[str, ...]:
    """The speaking elements by which a member of staff puts a name to what the resource says."""
    return tuple(path for path in speaking(type) if path in _SIGNED_IN)


@functools.cache
def stated_in(type: str, speaker: str) -> tuple[tuple[str, bool], ...]:
    """The elements in which a statement names its speaker, a resource of the type ``speaker``; with whether each is a list."""
    names = (*_STATED_IN, "performer") if type in _PERFORMED_BY_SPEAKER else _STATED_IN
    targets = definitions.references(type)
    found = [name for name in names if speaker in targets.get(name, ())]
    lists = {element.path for element in definitions.elements(type) if element.max != "1"} if found else frozenset()
    return tuple((name, f"{type}.{name}" in lists) for name in found)
