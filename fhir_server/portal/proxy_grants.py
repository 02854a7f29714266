"""Lists the proxy grants in force on a record, from the Consents and RelatedPersons in the patient's own View.

:mod:`fhir_server.consent.provisions` interprets the Consents, as for every request to the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.consent import provisions
from fhir_server.portal.proxy_resources import describe_person
from fhir_server.portal.wording import LEVELS
from fhir_server.search.filters import EVERYTHING, Filter, Has, TokenIs
from fhir_server.search.rows import Position

_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class ProxyGrant:
    """An active proxy grant for an adult's record that has not expired. It may not have started yet.

    ``consent``    id of the Consent
    ``persons``    ids of the RelatedPersons that get access, and ``names`` their names
    ``levels``     codes of the CodeSystem proxy-level
    ``since``, ``until``  microseconds since 1970 UTC, ``until`` exclusive; None where the grant has no limit
    """

    consent: str
    persons: tuple[str, ...]
    names: tuple[str, ...]
    levels: tuple[str, ...]
    since: int | None
    until: int | None


async def list_in_force(view: View, patient: str, zone: ZoneInfo) -> list[ProxyGrant]:
    """Return the adult grants on the record of ``patient``, the oldest first."""
    people = await _find_all(view, "RelatedPerson", EVERYTHING)
    related_persons = {str(person["id"]): person for person in people if person.get("active", True)}
    grants = []
    for consent in await _find_all(view, "Consent", Has("status", TokenIs(None, "active"))):
        permits = [
            provision
            for provision in provisions.proxy_provisions([consent], related_persons, patient=patient, zone=zone)
            if provision.kind == "adult" and view.now < provision.end
        ]
        if permits:
            grants.append(_grant(consent["id"], permits, related_persons))
    return sorted(grants, key=lambda grant: (grant.since or 0, grant.names, grant.consent))


def _grant(consent: str, permits: Sequence[provisions.ProxyProvision], related_persons: Mapping[str, Mapping[str, Any]]) -> ProxyGrant:
    persons = tuple(dict.fromkeys(permit.related_person for permit in permits))
    levels = {level for permit in permits for level in permit.levels}
    since, until = min(permit.start for permit in permits), max(permit.end for permit in permits)
    return ProxyGrant(
        consent,
        persons,
        tuple(describe_person(related_persons[id]) for id in persons),
        tuple(level for level in LEVELS if level in levels),
        None if since == MIN_INSTANT else since,
        None if until == MAX_INSTANT else until,
    )


async def _find_all(view: View, type: str, where: Filter) -> list[dict[str, Any]]:
    resources: list[dict[str, Any]] = []
    after: Position | None = None
    while True:
        page = await view.find(type, where, limit=_PAGE, after=after)
        resources += [jsontext.parse(version.body) for version in page.versions]
        if page.next is None:
            return resources
        after = page.next
