"""The words for statuses of R4, STU3 and DSTU2 (and R5's, which some R4 systems send).

A status without words here is shown by its code, and a missing one is said to be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fhir_server.display.texts import first_code

WITHDRAWN: Final = "entered-in-error"
_ORDER: Final = {
    "active": "Active",
    "on-hold": "On hold",
    "suspended": "On hold",
    "ended": "Ended",
    "cancelled": "Canceled: not to be taken",
    "revoked": "Canceled: not to be taken",
    "completed": "Completed",
    "stopped": "Stopped",
    "draft": "Draft: not prescribed",
    "unknown": "Status not known",
}
_TAKEN: Final = {
    "active": "Active",
    "recorded": "Recorded",
    "completed": "No longer taken: completed",
    "intended": "Planned: not taken yet",
    "stopped": "Stopped: no longer taken",
    "on-hold": "On hold: not taken at present",
    "not-taken": "Not taken",
    "draft": "Draft",
    "unknown": "Status not known",
}
_CLINICAL: Final = {
    "active": "Active",
    "recurrence": "Active: has come back",
    "relapse": "Active: has come back",
    "inactive": "Not active",
    "remission": "In remission",
    "resolved": "Resolved",
    "unknown": "Status not known",
}
_VERIFIED: Final = {
    "unconfirmed": "not confirmed",
    "presumed": "presumed, not confirmed",
    "provisional": "provisional, not confirmed",
    "differential": "one of several possibilities, not confirmed",
    "confirmed": "confirmed",
    "refuted": "refuted: this was found not to be so",
    "unknown": "not known whether it is confirmed",
}
_RESULT: Final = {
    "registered": "Not available yet",
    "specimen-in-process": "Not available yet",
    "preliminary": "Preliminary: may still change",
    "final": "Final",
    "amended": "Amended after it was final",
    "corrected": "Corrected after it was final",
    "appended": "Final, with later additions",
    "cancelled": "Canceled: not a valid result",
    "cannot-be-obtained": "Could not be obtained",
    "unknown": "Status not known",
}
_VISIT: Final = {
    "planned": "Planned",
    "arrived": "Arrived",
    "triaged": "Waiting to be seen",
    "in-progress": "Not finished yet",
    "onleave": "Interrupted",
    "on-hold": "Interrupted",
    "discharged": "Discharged",
    "finished": "Finished",
    "completed": "Finished",
    "cancelled": "Canceled: did not take place",
    "discontinued": "Broken off",
    "unknown": "Status not known",
}
_APPOINTMENT: Final = {
    "proposed": "Proposed: not booked",
    "pending": "Not confirmed yet",
    "waitlist": "On the waiting list",
    "booked": "Booked",
    "checked-in": "Arrived",
    "arrived": "Arrived",
    "fulfilled": "Took place",
    "cancelled": "Canceled",
    "noshow": "Missed",
}
_TEAM: Final = {
    "proposed": "Proposed: not active",
    "active": "Active",
    "suspended": "Not active at present",
    "inactive": "No longer active",
}
_MESSAGE: Final = {
    "preparation": "Not sent yet",
    "in-progress": "Not sent yet",
    "not-done": "Not sent",
    "on-hold": "On hold",
    "suspended": "On hold",
    "stopped": "Stopped",
    "aborted": "Stopped",
    "rejected": "Refused",
    "failed": "Not sent: it failed",
    "completed": "Completed",
    "unknown": "Status not known",
}
_GIVEN: Final = {
    "in-progress": "Being given",
    "not-done": "Not given",
    "on-hold": "Interrupted: not given at present",
    "completed": "Given",
    "stopped": "Stopped before all of it was given",
    "unknown": "Status not known",
}
_HANDED_OUT: Final = {
    "preparation": "Being prepared: not handed out yet",
    "in-progress": "Ready: not handed out yet",
    "cancelled": "Canceled: not handed out",
    "on-hold": "On hold: not handed out at present",
    "completed": "Handed out",
    "stopped": "Stopped: no longer handed out",
    "declined": "Declined: not handed out",
    "unknown": "Status not known",
}
_PROCEDURE: Final = {
    "preparation": "Being prepared: not done yet",
    "in-progress": "Not finished yet",
    "not-done": "Not done",
    "on-hold": "Interrupted",
    "suspended": "Interrupted",
    "stopped": "Stopped before it was finished",
    "aborted": "Stopped before it was finished",
    "completed": "Done",
    "unknown": "Status not known",
}
_REPORT: Final = _RESULT | {"partial": "Partial: may still change", "modified": "Amended", "cancelled": "Canceled: not a valid report"}
_DOCUMENT: Final = {
    "current": "Current",
    "superseded": "Replaced by a newer document",
}
_DOCUMENT_TEXT: Final = {
    "registered": "not available yet",
    "partial": "partial: may still change",
    "preliminary": "preliminary: may still change",
    "final": "final",
    "amended": "amended after it was final",
    "corrected": "corrected after it was final",
    "appended": "final, with later additions",
    "cancelled": "canceled: not a valid document",
    "deprecated": "no longer valid",
    "unknown": "not known whether it is final",
}
_GOAL: Final = {
    "proposed": "Proposed",
    "planned": "Planned",
    "accepted": "Agreed",
    "active": "Active",
    "on-hold": "On hold",
    "completed": "Completed",
    "cancelled": "Canceled",
    "rejected": "Rejected",
}
_ACHIEVED: Final = {
    "in-progress": "in progress",
    "improving": "improving",
    "worsening": "getting worse",
    "no-change": "no change",
    "achieved": "achieved",
    "sustaining": "achieved and kept",
    "not-achieved": "not achieved",
    "no-progress": "no progress",
    "not-attainable": "cannot be achieved",
}
_PLAN: Final = {
    "draft": "Draft",
    "active": "Active",
    "on-hold": "On hold",
    "revoked": "Canceled",
    "completed": "Completed",
    "unknown": "Status not known",
}
_FAMILY: Final = {
    "partial": "Not complete",
    "completed": "Recorded",
    "health-unknown": "Health not known",
}
_COVERAGE: Final = {
    "active": "Active",
    "cancelled": "Canceled: no longer valid",
    "draft": "Not active yet",
}
_ACCOUNT: Final = {
    "active": "Open",
    "inactive": "Closed",
    "on-hold": "On hold",
    "unknown": "Status not known",
}
_INVOICE: Final = {
    "draft": "Not sent yet",
    "issued": "Sent",
    "balanced": "Settled",
    "cancelled": "Canceled: not to be paid",
}
_CHARGE: Final = {
    "planned": "Planned",
    "billable": "Not billed yet",
    "not-billable": "Not billed",
    "aborted": "Canceled",
    "billed": "Billed",
    "unknown": "Status not known",
}
_BENEFIT: Final = {
    "active": "Decided",
    "cancelled": "Canceled",
    "draft": "Not decided yet",
}
_TASK: Final = {
    "draft": "Not sent yet",
    "requested": "Sent: nobody has looked at it yet",
    "received": "Received",
    "accepted": "Accepted",
    "ready": "Accepted",
    "in-progress": "In progress",
    "on-hold": "On hold: something is needed first",
    "rejected": "Declined",
    "failed": "Could not be done",
    "completed": "Done",
    "cancelled": "Canceled",
}
_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "AllergyIntolerance": _CLINICAL,
    "Condition": _CLINICAL,
    "MedicationRequest": _ORDER,
    "MedicationOrder": _ORDER,
    "MedicationStatement": _TAKEN,
    "Observation": _RESULT,
    "Encounter": _VISIT,
    "Appointment": _APPOINTMENT,
    "CareTeam": _TEAM,
    "Communication": _MESSAGE,
    "Immunization": _GIVEN,
    "MedicationAdministration": _GIVEN,
    "MedicationDispense": _HANDED_OUT,
    "Procedure": _PROCEDURE,
    "DiagnosticReport": _REPORT,
    "DocumentReference": _DOCUMENT,
    "Goal": _GOAL,
    "CarePlan": _PLAN,
    "FamilyMemberHistory": _FAMILY,
    "Coverage": _COVERAGE,
    "Account": _ACCOUNT,
    "Task": _TASK,
    "Invoice": _INVOICE,
    "ChargeItem": _CHARGE,
    "ExplanationOfBenefit": _BENEFIT,
}
_PLACES: Final = {
    "AllergyIntolerance": ("clinicalStatus", "status"),
    "Condition": ("clinicalStatus",),
    "Goal": ("lifecycleStatus",),
}
# What a type has beside its status: the element, its words, and what a code without words is called
_SECOND: Final = {
    "AllergyIntolerance": ("verificationStatus", _VERIFIED, "verification status"),
    "Condition": ("verificationStatus", _VERIFIED, "verification status"),
    "DocumentReference": ("docStatus", _DOCUMENT_TEXT, "document status"),
    "Goal": ("achievementStatus", _ACHIEVED, "progress"),
}
_ANY: Final = {WITHDRAWN: "Entered in error: not valid"}
_NONE: Final[tuple[str, Mapping[str, str], str]] = ("", {}, "")


def codes(resource: Mapping[str, object]) -> tuple[str, ...]:
    """Return the codes of all statuses that the resource has: ``("resolved", "refuted")``."""
    return tuple(filter(None, (first_code(resource, name) for name in ("status", "clinicalStatus", "verificationStatus"))))


def describe(resource: Mapping[str, object]) -> str:
    """Return what became of a resource, in words: ``Resolved, refuted: this was found not to be so``.

    Of a type that no page lists: its status as it is, "" if it has none.
    """
    type = str(resource["resourceType"])
    known = _WORDS.get(type, {})
    name, words, called = _SECOND.get(type, _NONE)
    status = first_code(resource, *_PLACES.get(type, ("status",)))
    second = first_code(resource, name) if name else ""
    # DSTU2's one status of an allergy is a status or a verification status.
    if not second and status not in known and status in words:
        status, second = "", status
    if not status and not second:
        return "Status not stated" if known else ""
    said = [known.get(status) or _ANY.get(status, f"Status “{status}”")] if status else []
    if second:
        said.append(words.get(second, f"{called} “{second}”"))
    text = ", ".join(said)
    return text[0].upper() + text[1:]
