"""The persons behind the tokens, as the rest of the server sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["patient", "clinician", "billing", "privacy"]


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with an account: a role, and the ids of the rows that are this person.

    ``patient``          id of the person's own Patient, if they are one
    ``practitioner``     id of the Practitioner, for staff
    ``related_persons``  ids of the RelatedPerson rows through which they act for others
    """

    role: Role
    patient: str | None = None
    practitioner: str | None = None
    related_persons: frozenset[str] = frozenset()
    name: str = ""


@dataclass(frozen=True, slots=True)
class RecordChoice:
    """A patient record that a person may open, as the record picker words it.

    ``relation``   "Your record", "Your child, age 14"
    ``note``       in plain words what this access includes and leaves out; "" for nothing to add
    ``fhir_user``  ``Type/id`` of the row that this person is towards the record (the parent's RelatedPerson);
                   "" for the person's own Patient or Practitioner
    """

    patient: str
    name: str
    relation: str
    note: str = ""
    fhir_user: str = ""


@dataclass(frozen=True, slots=True)
class EncounterChoice:
    """A visit that a person may hand to an app as its context; ``words`` are the picker's ("4 March 2026, check-up")."""

    encounter: str
    words: str


Records = Callable[[Person, int], Awaitable[Sequence[RecordChoice]]]
# The person, the id of the patient, the sensitivity labels kept from the app, the instant -> visits, the latest first.
Encounters = Callable[[Person, str, frozenset[str], int], Awaitable[Sequence[EncounterChoice]]]


async def no_encounters(person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
    """No visits to choose from."""
    return ()


def references(person: Person) -> frozenset[str]:
    """``Type/id`` of every row that is this person."""
    ids = {"Patient": [person.patient], "Practitioner": [person.practitioner], "RelatedPerson": person.related_persons}
    return frozenset(f"{type}/{id}" for type, many in ids.items() for id in many if id)


def own_reference(person: Person) -> str | None:
    """``Type/id`` of the row that is this person (the SMART ``fhirUser``), or None for staff without a row."""
    if person.practitioner:
        return f"Practitioner/{person.practitioner}"
    if person.patient:
        return f"Patient/{person.patient}"
    return f"RelatedPerson/{min(person.related_persons)}" if person.related_persons else None
