"""Which records a person may open, in the words of the record picker.

Asked of the same judgement that every later request is asked of; a record whose judgement is "nobody" is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fhir_server import jsontext
from fhir_server.access.permissions import PermissionResolver
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.policy import Policy
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.search import query
from fhir_server.search.filters import EVERYTHING
from fhir_server.smart.core.persons import EncounterChoice, Person, RecordChoice
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Store
from fhir_server.web.dates import format_date

MOST_VISITS = 50
_VISITS = resource_scopes("patient/Encounter.rs")

_TEEN = "Appointments, test results and medicines that are private to teenagers are not included."
_STANDARD = "Sensitive results, visits and medicines are not included."
# (actor, level of an adult grant) -> what the access leaves out of the kinds that it opens
_NOTES = {("PT", ""): _TEEN, ("PA", "standard"): _STANDARD}
_NARROW = {("PA", "scheduling"): "Visits only.", ("PA", "billing"): "Bills and insurance only."}
# data class -> what people call it
_KINDS = {
    "lab": "test results",
    "imaging": "imaging",
    "visit": "visits",
    "medication": "medicines",
    "allergy": "allergies",
    "condition": "diagnoses",
    "note": "doctors' notes",
    "procedure": "procedures",
    "careplan": "care plans",
}
_LATEST = query.parse("Encounter", [("_sort", "-date")], strict=True, now=0, base="").sort


class RecordChoices:
    """Answers :class:`~fhir_server.smart.core.context.SmartContext`'s question which records a person may open."""

    def __init__(self, store: Store, resolver: PermissionResolver, policy: Policy) -> None:
        self._store = store
        self._resolver = resolver
        self._policy = policy

    async def __call__(self, person: Person, now: int) -> Sequence[RecordChoice]:
        """The records this person may open at ``now``, the person's own first."""
        async with self._store.snapshot() as snapshot:
            openable = await self._resolver.accessible_records(snapshot, person, now)
        today = self._today(now)
        return [
            _choice(person, one.patient, one.resource, one.actor, one.name, today, exclusion_note(self._policy, one.actor))
            for one in openable
        ]

    def _today(self, now: int) -> datetime:
        return datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(self._resolver.timezone)


class EncounterChoices:
    """Answers :class:`~fhir_server.smart.core.context.SmartContext`'s question which visits in a record a person may hand to an app.

    Asked through a View such as the app itself will get, less what the person keeps from it.
    """

    def __init__(self, store: Store, resolver: PermissionResolver) -> None:
        self._store = store
        self._resolver = resolver

    async def __call__(self, person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
        """The latest visits in view, the latest first."""
        principal = Principal("", "app", frozenset(), False, None, person, patient, None, _VISITS, None, "", MAX_INSTANT, withheld)
        async with self._store.snapshot() as snapshot:
            permissions = await self._resolver.resolve(snapshot, principal, now)
            found, _ = await View(snapshot, permissions, now).find("Encounter", EVERYTHING, sort=_LATEST, limit=MOST_VISITS)
        return [EncounterChoice(seen.id, _visit(jsontext.parse(seen.body))) for seen in found]


def _visit(encounter: dict[str, Any]) -> str:
    """A visit in words: the day, and what kind of visit it was."""
    day = format_date(str(encounter.get("period", {}).get("start", "")))
    types = [concept.get("text") or _display(concept) for concept in encounter.get("type", ())]
    kind = next(filter(None, types), "") or str(encounter.get("class", {}).get("display", "")) or "Visit"
    return f"{day}, {kind}" if day else kind


def _display(concept: dict[str, Any]) -> str:
    return next((str(coding["display"]) for coding in concept.get("coding", ()) if "display" in coding), "")


def _choice(person: Person, patient: str, resource: dict[str, Any], actor: Actor, name: str, today: datetime, note: str) -> RecordChoice:
    relation = "Your record" if patient == person.patient else _relation(actor, resource, today)
    return RecordChoice(patient, _name(resource), relation, note, "" if patient == person.patient else name)


def exclusion_note(policy: Policy, actor: Actor) -> str:
    """What somebody who acts for another does not get, asked of the policy itself; "" for who gets all or is nobody's proxy.

    An empty list of diagnoses must not read as good health to whoever is shown no diagnoses.
    """
    if actor.kind not in ("PC", "PT", "PA"):
        return ""
    narrow = _NARROW.get((actor.kind, actor.level))
    closed = [words for data, words in _KINDS.items() if not permits(policy, actor, VisibilityClass(data))]
    listed = " and ".join(filter(None, [", ".join(closed[:-1]), *closed[-1:]]))
    whole = f"{listed[:1].upper()}{listed[1:]} are not included at all." if listed else ""
    return narrow or " ".join(filter(None, [_NOTES.get((actor.kind, actor.level), ""), whole]))


def _relation(actor: Actor, resource: dict[str, Any], today: datetime) -> str:
    if actor.kind == "PA":
        return "Shared with you"
    if actor.kind not in ("PC", "PT"):
        return "Your patient"
    age = _age(str(resource.get("birthDate", "")), today)
    return f"Your child, age {age}" if age is not None else "Your child"


def _age(born: str, today: datetime) -> int | None:
    """Whole years, for display; None for a partial birth date."""
    if len(born) != 10:
        return None
    year, month, day = (int(part) for part in born.split("-"))
    return today.year - year - ((today.month, today.day) < (month, day))


def _name(resource: dict[str, Any]) -> str:
    names = resource.get("name") or [{}]
    chosen = next((name for name in names if name.get("use") in ("usual", "official")), names[0])
    return str(chosen.get("text") or " ".join([*chosen.get("given", []), chosen.get("family", "")]).strip() or "Unnamed patient")
