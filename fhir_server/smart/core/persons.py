"""The persons on whose behalf tokens are issued, and the records and visits that they can choose for an app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fhir_server.smart.core.scopes import resource_scopes

Role = Literal["patient", "clinician", "billing", "privacy"]


@dataclass(frozen=True, slots=True)
class Person:
    """A person with an account: a role, and the ids of the resources that represent the person.

    ``patient``          id of the person's own Patient, if there is one
    ``practitioner``     id of the Practitioner, for staff
    ``related_persons``  ids of the RelatedPerson resources with which the person is a proxy for others
    """

    role: Role
    patient: str | None = None
    practitioner: str | None = None
    related_persons: frozenset[str] = frozenset()
    name: str = ""


@dataclass(frozen=True, slots=True)
class RecordChoice:
    """A patient record that a person may open, as the record picker displays it.

    ``relation``   "Your record", "Your child, age 14"
    ``note``       what this access includes and leaves out; "" for full access
    ``fhir_user``  ``Type/id`` of the resource that represents the person in this record (a parent's RelatedPerson);
                   "" for the person's own Patient or Practitioner
    ``birth_date`` a FHIR date; "" if the record has none
    ``facts``      what tells patients of one name apart, for staff: birth date, sex, number; "" in the list of a personal account
    """

    patient: str
    name: str
    relation: str
    note: str = ""
    fhir_user: str = ""
    birth_date: str = ""
    facts: str = ""


@dataclass(frozen=True, slots=True)
class ChartPage:
    """A page of a clinician's patients, and the value of ``page`` for the next one; "" if this was the last."""

    charts: tuple[RecordChoice, ...] = ()
    next: str = ""


class Charts(Protocol):
    """A clinician's patients: :class:`~fhir_server.access.chart_search.ChartSearch`."""

    async def find(self, person: Person, reader: str, typed: str, page: str, now: int) -> ChartPage: ...

    async def one(self, person: Person, patient: str, now: int) -> RecordChoice | None: ...


@dataclass(frozen=True, slots=True)
class EncounterChoice:
    """A visit that a person may choose as an app's context; ``words`` is the picker's text ("4 March 2026, check-up")."""

    encounter: str
    words: str


Records = Callable[[Person, int], Awaitable[Sequence[RecordChoice]]]
# Arguments: person, patient id, sensitivity labels withheld from the app, instant.  Result: visits, latest first.
Encounters = Callable[[Person, str, frozenset[str], int], Awaitable[Sequence[EncounterChoice]]]
# Arguments: person, patient id (None: no record is chosen), requested scopes, instant.  Result: by requested resource scope, what
# to grant for it.
EffectiveScopes = Callable[[Person, str | None, str, int], Awaitable[Mapping[str, tuple[str, ...]]]]


async def all_scopes(person: Person, patient: str | None, scope: str, now: int) -> Mapping[str, tuple[str, ...]]:
    """Every requested resource scope as it is."""
    return {each.text: (each.text,) for each in resource_scopes(scope)}


class NoCharts:
    """No patients."""

    async def find(self, person: Person, reader: str, typed: str, page: str, now: int) -> ChartPage:
        return ChartPage()

    async def one(self, person: Person, patient: str, now: int) -> RecordChoice | None:
        return None


async def no_encounters(person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
    """An empty list of visits."""
    return ()


def references(person: Person) -> frozenset[str]:
    """``Type/id`` of every resource that represents the person."""
    ids = {"Patient": [person.patient], "Practitioner": [person.practitioner], "RelatedPerson": person.related_persons}
    return frozenset(f"{type}/{id}" for type, own in ids.items() for id in own if id)


def own_reference(person: Person) -> str | None:
    """``Type/id`` of the resource that represents the person (SMART ``fhirUser``), or None for staff without a Practitioner."""
    if person.practitioner:
        return f"Practitioner/{person.practitioner}"
    if person.patient:
        return f"Patient/{person.patient}"
    return f"RelatedPerson/{min(person.related_persons)}" if person.related_persons else None
