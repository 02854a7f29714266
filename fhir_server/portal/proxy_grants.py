"""The grants in force on a record, read from its Consents and RelatedPersons through the patient's own View.

What a Consent grants, and when, is asked of the same reading of it that every request is judged by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.consent import provisions
from fhir_server.portal.wording import LEVELS, RELATIONSHIPS
from fhir_server.search.filters import EVERYTHING, Filter, Has, TokenIs
from fhir_server.search.visibility import Position

_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class ProxyGrant:
    """One active adult grant that has not run out; it may still have to begin.

    ``consent``    id of the Consent
    ``persons``    ids of the RelatedPersons it lets in, and ``names`` how they are called
    ``levels``     codes of the CodeSystem proxy-level
    ``since``, ``until``  the stretch it holds, half open, in microseconds since 1970 UTC; None where open
    """

    consent: str
    persons: tuple[str, ...]
    names: tuple[str, ...]
    levels: tuple[str, ...]
    since: int | None
    until: int | None


async def in_force(view: View, patient: str, zone: ZoneInfo) -> list[ProxyGrant]:
    """The adult grants on this record, those of the longest standing first."""
    people = {str(one["id"]): one for one in await _all(view, "RelatedPerson", EVERYTHING) if one.get("active", True)}
    consents = await _all(view, "Consent", Has("status", TokenIs(None, "active")))
    read = ((one["id"], provisions.proxy_provisions([one], people, patient=patient, zone=zone)) for one in consents)
    found = [grant for id, said in read if (grant := _grant(id, said, people, view.now))]
    return sorted(found, key=lambda grant: (grant.since or 0, grant.names, grant.consent))


def _grant(consent: str, said: Iterable[provisions.ProxyProvision], people: dict[str, dict[str, Any]], now: int) -> ProxyGrant | None:
    given = [one for one in said if one.kind == "adult" and now < one.end]
    if not given:
        return None
    persons = tuple(dict.fromkeys(one.related_person for one in given))
    levels = {level for one in given for level in one.level.split("+")}
    since, until = min(one.start for one in given), max(one.end for one in given)
    return ProxyGrant(
        consent,
        persons,
        tuple(_describe_person(people[id]) for id in persons),
        tuple(level for level in LEVELS if level in levels),
        None if since == MIN_INSTANT else since,
        None if until == MAX_INSTANT else until,
    )


def _describe_person(person: dict[str, Any]) -> str:
    codes = [coding.get("code") for one in person.get("relationship", []) for coding in one.get("coding", [])]
    relation = next((RELATIONSHIPS[code][0].lower() for code in codes if code in RELATIONSHIPS), "")
    return _name(person) + (f" ({relation})" if relation else "")


def _name(person: dict[str, Any]) -> str:
    name = (person.get("name") or [{}])[0]
    return str(name.get("text") or " ".join([*name.get("given", []), name.get("family", "")]).strip() or "Somebody unnamed")


async def _all(view: View, type: str, where: Filter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: Position | None = None
    while True:
        page, after = await view.find(type, where, limit=_PAGE, after=after)
        found += [jsontext.parse(seen.body) for seen in page]
        if after is None:
            return found
