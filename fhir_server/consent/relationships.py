"""Determines the role of a person toward a patient at an instant, from birth date, death, relations and grants in the record.

The rules are those of docs/policy.md: roles, age rules, grants and restrictions. Instants are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.consent import age_limits as aging
from fhir_server.consent.age_limits import AgeLimits
from fhir_server.consent.decision import Actor
from fhir_server.consent.intervals import Interval
from fhir_server.consent.policy import ActorKind, Policy
from fhir_server.consent.provisions import ProxyProvision, period_of, proxy_provisions
from fhir_server.resources.elements import target_of

__all__ = ["ProxyProvision", "Relationship", "Requester", "proxy_provisions", "resolve_relationship"]

Json = Mapping[str, Any]
_MERGED: Final = frozenset({"replaces", "replaced-by"})


@dataclass(frozen=True, slots=True)
class Requester:
    """A user of this server.

    ``role``             patient, clinician, billing or privacy
    ``patient``          id of the person's own Patient
    ``practitioner``     id of the person's own Practitioner
    ``related_persons``  ids of the RelatedPersons that are this person
    """

    role: str
    patient: str | None
    practitioner: str | None
    related_persons: frozenset[str]


@dataclass(frozen=True, slots=True)
class Relationship:
    """The role of a person toward a patient.

    ``actor``        None: no access
    ``valid_until``  the next instant at which the role may change without a write
    ``denied``       the ``Type/id`` of resources that a restriction withholds from this person
    """

    actor: Actor | None
    valid_until: int
    denied: frozenset[str] = frozenset()


def resolve_relationship(
    policy: Policy,
    now: int,
    *,
    patient: Json | None,
    person: Requester,
    related: Iterable[Json],
    consents: Iterable[Json],
    linked: Sequence[Json] = (),
) -> Relationship:
    """The role of the person toward the patient at ``now``: self, else proxy.  Roles do not add up; staff roles are not resolved here.

    ``patient``   the Patient resource; None: no access
    ``related``   RelatedPerson resources
    ``consents``  the patient's Consents
    ``linked``    the Patients that it replaces or is replaced by; a link to any other Patient closes the record
    """
    if patient is None or person.role != "patient" or not isinstance(patient.get("id"), str):
        return Relationship(None, MAX_INSTANT)
    records = (patient, *linked)
    if any(_is_deceased(record) for record in records) or not _links(patient) <= {f"Patient/{record.get('id')}" for record in linked}:
        return Relationship(None, MAX_INSTANT)
    limits = aging.age_limits(records, policy.timezone, policy.feb29, now)
    age_instants = _age_instants(policy, records, limits)
    if not limits.known:
        return Relationship(None, _next_instant(now, age_instants))
    if person.patient == patient["id"]:
        return Relationship(_self(policy, now, records, limits), _next_instant(now, age_instants))
    periods = {row["id"]: period for row in related if (period := _relation(row, patient["id"], person, policy))}
    provisions = proxy_provisions(consents, periods, patient=patient["id"], zone=policy.timezone)
    bounds = [instant for period in periods.values() for instant in period]
    bounds += [bound for provision in provisions for bound in (provision.start, provision.end)]
    related_now = {id for id, (start, end) in periods.items() if start <= now < end}
    valid = [each for each in provisions if each.start <= now < each.end and each.related_person in related_now]
    denied = frozenset[str]().union(*(provision.rows for provision in valid))
    return Relationship(_proxy(now, limits, valid), _next_instant(now, [*age_instants, *bounds]), denied)


def _self(policy: Policy, now: int, records: Sequence[Json], limits: AgeLimits) -> Actor | None:
    if now >= limits.own_access_begins:
        return Actor(ActorKind.ADULT_SELF)
    begin = _minor_access_begins(policy, records)
    return Actor(ActorKind.MINOR_SELF) if begin is not None and now >= begin else None


def _proxy(now: int, limits: AgeLimits, valid: Sequence[ProxyProvision]) -> Actor | None:
    kinds = {provision.kind for provision in valid if not provision.rows}
    if "deny" in kinds:
        return None
    if "adult" in kinds and now >= limits.own_access_begins:
        return Actor(ActorKind.ADULT_PROXY, frozenset().union(*(each.levels for each in valid if each.kind == "adult")))
    if "child" not in kinds:
        return None
    if now >= limits.proxy_access_ends:
        return Actor(ActorKind.EXPIRED_PROXY)
    return Actor(ActorKind.TEEN_PROXY if now >= limits.turns_12 else ActorKind.CHILD_PROXY)


def _is_deceased(patient: Json) -> bool:
    return patient.get("deceasedBoolean") is True or "deceasedDateTime" in patient or "_deceasedDateTime" in patient


def _links(patient: Json) -> set[str]:
    """The ``Type/id`` of the records merged with this one; the text of a reference that is not relative."""
    others = [link.get("other", {}) for link in patient.get("link", ()) if link.get("type") in _MERGED]
    return {"/".join(target_of(other) or (str(other.get("reference")),)) for other in others}


def _relation(related: Json, patient: str, person: Requester, policy: Policy) -> Interval | None:
    """When this RelatedPerson makes the person a relation of the patient; None if it does not."""
    about = target_of(related.get("patient", {}))
    if related.get("id") not in person.related_persons or about != ("Patient", patient) or related.get("active") is False:
        return None
    return period_of(related, policy.timezone)


def _minor_access_begins(policy: Policy, records: Sequence[Json]) -> int | None:
    """When a minor's own access begins, by the latest possible birth date; None if the policy gives minors no access."""
    if policy.minor_account is None:
        return None
    birthdays = [aging.birthday_instant(record, policy.minor_account, policy.timezone, policy.feb29) for record in records]
    return max(birthday.latest for birthday in birthdays if birthday)


def _age_instants(policy: Policy, records: Sequence[Json], limits: AgeLimits) -> list[int]:
    """The instants at which age alone may change the role; for a birth date in the future, the birth."""
    if not limits.known:
        return [birth.earliest for record in records if (birth := aging.birthday_instant(record, 0, policy.timezone, "mar1"))]
    ends = [birthday.latest for record in records if (birthday := aging.birthday_instant(record, aging.MAX_AGE, policy.timezone, "mar1"))]
    minor_access = _minor_access_begins(policy, records)
    return [
        limits.turns_12,
        limits.proxy_access_ends,
        limits.own_access_begins,
        *ends,
        *([minor_access] if minor_access is not None else []),
    ]


def _next_instant(now: int, instants: Iterable[int]) -> int:
    return min((instant for instant in instants if instant > now and instant != MIN_INSTANT), default=MAX_INSTANT)
