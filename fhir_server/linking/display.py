"""Reads a linked record for its page: whose it is, and each section with its rows or with the reason why it has none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from fhir_server.linking import failures, http, link_tokens, links, persons
from fhir_server.linking.context import ENDED, LinkEndedError, LinkingContext, UnusableError, log_failure
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.linking.persons import RecordPerson
from fhir_server.linking.rows import Row
from fhir_server.linking.searching import WORDS, Found, Search
from fhir_server.linking.token_endpoint import PartnerTokens
from fhir_server.smart.accounts.users import User
from fhir_server.smart.outbound.json_client import JsonResponse

# title -> resource types, in the order of the page
SECTIONS: Final = {
    "Allergies": ("AllergyIntolerance",),
    "Medicines": ("MedicationRequest", "MedicationStatement"),
    "Test results": ("Observation",),
    "Visits": ("Appointment", "Encounter"),
    "Health issues": ("Condition",),
    "Care team": ("CareTeam",),
    "Messages": ("Communication",),
}
# In DSTU2, prescriptions have another type. It is asked for if there are none of the newer one.
_FORMER: Final = {"MedicationRequest": "MedicationOrder"}
_GENERAL: Final = ("asked-to-wait", "limited", "unreachable", "slow", "sign-in")  # failures that another type would meet too


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page, with its rows, the newest first. ``notes``: why rows are missing, one sentence or more each."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkedRecord:
    """What the page of a link shows.

    ``person``   whose record it is, as the other system states it now; None if it did not
    ``problem``  why the record as a whole cannot be shown; "" if it can
    """

    person: RecordPerson | None = None
    problem: str = ""
    sections: tuple[Section, ...] = field(default=())


async def load_record(context: LinkingContext, user: User, link: Link, organization: Organization) -> LinkedRecord:
    """Fetch everything for the page of a link.

    Raises LinkEndedError or UnreachableError if the link itself does not work.
    """
    ends = asyncio.get_running_loop().time() + context.view_seconds
    tokens = await link_tokens.get_valid(context, user, link)
    patient, tokens = await _read_patient(context, user, link, organization, tokens)
    is_patient = patient.status == 200 and patient.body.get("resourceType") == "Patient"
    if is_patient and patient.body.get("id") != link.patient:
        log_failure(organization, "read of the Patient", "answered with another resource")
        return LinkedRecord(problem=persons.WRONG_PATIENT)
    person = persons.parse_patient(patient.body) if is_patient else None
    if person is not None:
        await links.save_person(context, user, link, person)
    elif not is_patient:
        log_failure(organization, "read of the Patient", f"answered with status {patient.status}")
    search = Search(context, organization, link, tokens.access, ends)
    by_type = await _find_all(search)
    kinds = {found.failure.kind if found.failure else "" for found in by_type.values()}
    if kinds == {"sign-in"} and patient.status == 401:
        raise LinkEndedError(ENDED)
    failure = next(iter(by_type.values())).failure
    if len(kinds) == 1 and failure:  # one reason for everything is said once
        return LinkedRecord(person, failure.of_record())
    return LinkedRecord(person, sections=tuple(_section(title, [by_type[type] for type in types]) for title, types in SECTIONS.items()))


async def _read_patient(
    context: LinkingContext, user: User, link: Link, organization: Organization, tokens: PartnerTokens
) -> tuple[JsonResponse, PartnerTokens]:
    """Read whose record it is, with a new access token if the other system refuses this one: the only one for this page."""
    url = f"{link.base}/Patient/{link.patient}"
    try:
        response = await http.get(context, organization, url, None, tokens.access)
        if response.status == 401 and tokens.refresh:
            tokens = await link_tokens.get_valid(context, user, link, refused=tokens.access)
            response = await http.get(context, organization, url, None, tokens.access)
    except UnusableError:
        return JsonResponse(200, {}), tokens
    return response, tokens


async def _find_all(search: Search) -> dict[str, Found]:
    types = [type for types in SECTIONS.values() for type in types]
    return dict(zip(types, await asyncio.gather(*(_find(search, type) for type in types)), strict=True))


async def _find(search: Search, type: str) -> Found:
    found = await search.find(type)
    former = _FORMER.get(type)
    if former is None or found.rows or (found.failure and found.failure.kind in _GENERAL):
        return found
    older = await search.find(former)
    return found if older.failure or not (older.rows or older.notes) else older


def _section(title: str, outcomes: list[Found]) -> Section:
    rows = sorted((row for found in outcomes for row in found.rows), key=lambda row: row.when, reverse=True)
    notes = dict.fromkeys(note for found in outcomes for note in found.notes)
    empty = [WORDS[found.type] for found in outcomes if not found.rows and not found.failure]
    if not rows and empty:
        notes = {failures.EMPTY.format(what=" and ".join(empty)): None} | notes
    return Section(title, tuple(rows), tuple(notes))
