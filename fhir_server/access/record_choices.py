"""Lists the records a person may open and the visits in a record, as options of the pickers of the authorization pages.

Both lists come from the permissions that also apply to every later request, so a picker offers only what an app can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fhir_server import jsontext
from fhir_server.access.access_summary import exclusion_note
from fhir_server.access.resolver import AccessibleRecord, PermissionResolver
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import ActorKind, Policy
from fhir_server.search import query
from fhir_server.search.filters import EVERYTHING
from fhir_server.smart.core.persons import EncounterChoice, Person, RecordChoice
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Store
from fhir_server.web.dates import format_date

MOST_VISITS = 50
_VISIT_SCOPES = resource_scopes("patient/Encounter.rs")
_NEWEST_FIRST = query.parse(("Encounter",), [("_sort", "-date")], strict=True, now=0, base="").sort


class RecordChoices:
    """The ``records`` callable of :class:`~fhir_server.smart.core.context.SmartContext`: options of the record picker."""

    def __init__(self, store: Store, resolver: PermissionResolver, policy: Policy) -> None:
        self._store = store
        self._resolver = resolver
        self._policy = policy

    async def __call__(self, person: Person, now: int) -> Sequence[RecordChoice]:
        """Return the records this person may open at ``now`` (microseconds since 1970 UTC), the person's own first."""
        async with self._store.snapshot() as snapshot:
            records = await self._resolver.accessible_records(snapshot, person, now)
        today = self._today(now)
        return [self._choice(person, record, today) for record in records]

    def _choice(self, person: Person, record: AccessibleRecord, today: datetime) -> RecordChoice:
        is_own = record.patient == person.patient
        relation = "Your record" if is_own else _relation(record.actor, record.resource, today)
        note = exclusion_note(self._policy, record.actor)
        fhir_user, birth_date = "" if is_own else record.name, str(record.resource.get("birthDate", ""))
        return RecordChoice(record.patient, patient_name(record.resource), relation, note, fhir_user, birth_date)

    def _today(self, now: int) -> datetime:
        return datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(self._resolver.timezone)


class EncounterChoices:
    """The ``encounters`` callable of :class:`~fhir_server.smart.core.context.SmartContext`: options of the visit picker.

    Reads through the View that the app itself will get, without the sensitive categories that the person withholds from it.
    """

    def __init__(self, store: Store, resolver: PermissionResolver) -> None:
        self._store = store
        self._resolver = resolver

    async def __call__(self, person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
        """Return the visible visits of ``patient``, the newest first, at most :data:`MOST_VISITS`."""
        principal = Principal("", "app", frozenset(), False, None, person, patient, None, _VISIT_SCOPES, None, "", MAX_INSTANT, withheld)
        async with self._store.snapshot() as snapshot:
            permissions = await self._resolver.resolve(snapshot, principal, now)
            page = await View(snapshot, permissions, now).find("Encounter", EVERYTHING, sort=_NEWEST_FIRST, limit=MOST_VISITS)
        return [EncounterChoice(visit.id, _describe_visit(jsontext.parse(visit.body))) for visit in page.versions]


def _describe_visit(encounter: dict[str, Any]) -> str:
    """Return the day and the type of a visit, such as "4 March 2026, check-up"."""
    day = format_date(str(encounter.get("period", {}).get("start", "")))
    types = [concept.get("text") or _display(concept) for concept in encounter.get("type", ())]
    kind = next(filter(None, types), "") or str(encounter.get("class", {}).get("display", "")) or "Visit"
    return f"{day}, {kind}" if day else kind


def _display(concept: dict[str, Any]) -> str:
    return next((str(coding["display"]) for coding in concept.get("coding", ()) if "display" in coding), "")


def _relation(actor: Actor, resource: dict[str, Any], today: datetime) -> str:
    if actor.kind is ActorKind.ADULT_PROXY:
        return "Shared with you"
    if actor.kind not in (ActorKind.CHILD_PROXY, ActorKind.TEEN_PROXY):
        return "Your patient"
    age = _age(str(resource.get("birthDate", "")), today)
    return f"Your child, age {age}" if age is not None else "Your child"


def _age(born: str, today: datetime) -> int | None:
    """Return the age in whole years, for display; None for a partial birth date."""
    if len(born) != 10:
        return None
    year, month, day = (int(part) for part in born.split("-"))
    return today.year - year - ((today.month, today.day) < (month, day))


def patient_name(resource: dict[str, Any]) -> str:
    """Return the name of a Patient for pages: the usual or official one, else the first."""
    names = resource.get("name") or [{}]
    chosen = next((name for name in names if name.get("use") in ("usual", "official")), names[0])
    return str(chosen.get("text") or " ".join([*chosen.get("given", []), chosen.get("family", "")]).strip() or "Unnamed patient")
