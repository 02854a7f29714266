"""Reads a linked record for its page: whose it is, and each section with its rows or with the reason why it has none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from fhir_server.display import Row
from fhir_server.linking import failures, http, link_tokens, links, persons
from fhir_server.linking.context import ENDED, NOT_YET, SLOW, LinkEndedError, LinkingContext, SlowError, UnusableError, log_failure
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.linking.persons import RecordPerson
from fhir_server.linking.queries import SECTIONS, Query, SectionQueries
from fhir_server.linking.searching import Found, Search
from fhir_server.linking.token_endpoint import PartnerTokens
from fhir_server.smart.accounts.users import User
from fhir_server.smart.outbound.json_client import JsonResponse

_GENERAL: Final = ("asked-to-wait", "limited", "unreachable", "slow", "not-yet", "sign-in")  # failures that another type would meet too


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page.

    ``slug``     its name in URLs
    ``rows``     the newest first
    ``notes``    why rows are missing, one sentence or more each
    ``is_late``  whether the other system has not sent all of it yet
    """

    title: str
    slug: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    is_late: bool


@dataclass(frozen=True, slots=True)
class LinkedRecord:
    """What the page of a link shows.

    ``person``   whose record it is, as the other system states it now; None if it did not
    ``problem``  why the record as a whole cannot be shown; "" if it can
    ``late``     sections of which the other system has not sent all yet
    """

    person: RecordPerson | None = None
    problem: str = ""
    sections: tuple[Section, ...] = ()
    late: tuple[SectionQueries, ...] = ()


async def load_record(
    context: LinkingContext, user: User, link: Link, organization: Organization, chosen: tuple[SectionQueries, ...] = ()
) -> LinkedRecord:
    """Fetch what the page of a link shows.

    ``chosen``  the sections for which the person waits; () for all sections, of which those that do not arrive soon are still to come:
                a system that is slow with one list does not hold up the others

    Raises LinkEndedError or UnreachableError if the link itself does not work.
    """
    now, seconds = asyncio.get_running_loop().time, context.view_seconds if chosen else context.first_seconds
    tokens = await link_tokens.get_valid(context, user, link)
    ends = now() + seconds
    try:
        patient, tokens = await _read_patient(context, user, link, organization, tokens, ends)
    except TimeoutError:
        if not chosen:
            return LinkedRecord(problem=NOT_YET, late=SECTIONS)
        raise SlowError(SLOW, "the time for one page of this server was over") from None
    is_patient = patient.status == 200 and patient.body.get("resourceType") == "Patient"
    if is_patient and patient.body.get("id") != link.patient:
        log_failure(organization, "read of the Patient", "answered with another resource")
        return LinkedRecord(problem=persons.WRONG_PATIENT)
    person = persons.parse_patient(patient.body) if is_patient else None
    if person is not None:
        await links.save_person(context, user, link, person)
    elif not is_patient:
        log_failure(organization, "read of the Patient", f"answered with status {patient.status}")
    search = Search(context, organization, link, tokens, ends if chosen else now() + seconds, waits=bool(chosen))
    found = await _find_all(search, chosen or SECTIONS)
    kinds = {each.failure.kind if each.failure else "" for each in found.values()}
    if kinds == {"sign-in"} and patient.status == 401:
        raise LinkEndedError(ENDED)
    sections = [_section(section, [found[query] for query in section.queries]) for section in chosen or SECTIONS]
    late = tuple(each for each, shown in zip(chosen or SECTIONS, sections, strict=True) if shown.is_late)
    failure = next(iter(found.values())).failure
    if len(kinds) == 1 and failure and not chosen:  # one reason for everything is said once
        return LinkedRecord(person, failure.of_record(), late=late)
    return LinkedRecord(person, sections=tuple(sections), late=late)


async def _read_patient(
    context: LinkingContext, user: User, link: Link, organization: Organization, tokens: PartnerTokens, ends: float
) -> tuple[JsonResponse, PartnerTokens]:
    """Read whose record it is, with a new access token if the other system refuses this one: the only one for this page.

    Raises TimeoutError at ``ends``, but never in the middle of a refresh, in which a token could be lost.
    """
    url = f"{link.base}/Patient/{link.patient}"
    try:
        async with asyncio.timeout_at(ends):
            response = await http.get(context, organization, url, None, tokens.access)
        if response.status == 401 and tokens.refresh:
            tokens = await link_tokens.get_valid(context, user, link, refused=tokens.access)
            async with asyncio.timeout_at(ends):
                response = await http.get(context, organization, url, None, tokens.access)
    except UnusableError:
        return JsonResponse(200, {}), tokens
    return response, tokens


async def _find_all(search: Search, sections: tuple[SectionQueries, ...]) -> dict[Query, Found]:
    queries = [query for section in sections for query in section.queries]
    return dict(zip(queries, await asyncio.gather(*(_find(search, query) for query in queries)), strict=True))


async def _find(search: Search, query: Query) -> Found:
    found = await search.find(query)
    if query.former is None or found.rows or (found.failure and found.failure.kind in _GENERAL):
        return found
    older = await search.find(query.former)
    return older if older.rows or older.is_late or (older.notes and not older.failure) else found


def _section(section: SectionQueries, outcomes: list[Found]) -> Section:
    rows = sorted((row for found in outcomes for row in found.rows), key=lambda row: row.when, reverse=True)
    notes = dict.fromkeys(note for found in outcomes for note in found.notes)
    empty = [found.query.what for found in outcomes if not found.rows and not found.failure]
    if not rows and empty:
        notes = {failures.EMPTY.format(what=_join(empty)): None} | notes
    return Section(section.title, section.slug, tuple(rows), tuple(notes), any(found.is_late for found in outcomes))


def _join(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
