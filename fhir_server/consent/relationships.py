"""Who somebody is to a patient *now*: birth date, death, relations and grants, read from the record itself.

The rules are those of ``docs/policy.md`` on actors, ages and grants; all instants are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.consent import age_limits as aging
from fhir_server.consent.age_limits import AgeLimits
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import Policy
from fhir_server.consent.provisions import ProxyProvision, is_in_period, proxy_provisions

__all__ = ["ProxyProvision", "Relationship", "Requester", "proxy_provisions", "resolve_relationship"]

Json = Mapping[str, Any]
_MERGED: Final = frozenset({"replaces", "replaced-by"})


@dataclass(frozen=True, slots=True)
class Requester:
    """A user of ours: ``role`` patient, clinician, billing or privacy; own Patient and Practitioner ids; the RelatedPersons
    that are this person."""

    role: str
    patient: str | None
    practitioner: str | None
    related_persons: frozenset[str]


@dataclass(frozen=True, slots=True)
class Relationship:
    """What the person is to the patient, and the next instant at which that may change without a write.

    ``denied``  the ``Type/id`` of single rows that a restriction keeps from this person.
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
    """The one hat this person wears for this patient at ``now``: self, else proxy; no actor means no access.

    ``patient`` the Patient resource, ``related`` its RelatedPersons, ``consents`` its Consents, ``linked`` the Patients it
    replaces or is replaced by (a link to one not given closes the record: the strictest of all must hold).
    Staff do not come this way, and nobody's rights add up over hats.
    """
    if patient is None or person.role != "patient" or not isinstance(patient.get("id"), str):
        return Relationship(None, MAX_INSTANT)
    records = (patient, *linked)
    if any(_is_deceased(one) for one in records) or not _links(patient) <= {f"Patient/{one.get('id')}" for one in linked}:
        return Relationship(None, MAX_INSTANT)
    facts = aging.age_limits(records, policy.timezone, policy.feb29, now)
    turning = _turning(policy, records, facts)
    if not facts.known:
        return Relationship(None, _next(now, turning))
    if person.patient == patient["id"]:
        return Relationship(_self(policy, now, records, facts), _next(now, turning))
    mine = {one["id"]: span for one in related if (span := _relation(one, patient["id"], person, policy))}
    given = proxy_provisions(consents, mine, patient=patient["id"], zone=policy.timezone)
    bounds = [instant for span in mine.values() for instant in span] + [bound for one in given for bound in (one.start, one.end)]
    related_now = {id for id, (start, end) in mine.items() if start <= now < end}
    valid = [one for one in given if one.start <= now < one.end and one.related_person in related_now]
    denied = frozenset[str]().union(*(one.rows for one in valid))
    return Relationship(_proxy(now, facts, valid), _next(now, [*turning, *bounds]), denied)


def _self(policy: Policy, now: int, records: Sequence[Json], facts: AgeLimits) -> Actor | None:
    if now >= facts.own_access_begins:
        return Actor("AS")
    starts = _own_account(policy, records)
    return Actor("MS") if starts is not None and now >= starts else None


def _proxy(now: int, facts: AgeLimits, valid: Sequence[ProxyProvision]) -> Actor | None:
    kinds = {one.kind for one in valid if not one.rows}
    if "deny" in kinds:
        return None
    if "adult" in kinds and now >= facts.own_access_begins:
        levels = {level for one in valid if one.kind == "adult" for level in one.level.split("+")}
        return Actor("PA", "+".join(sorted(levels)))
    if "child" not in kinds:
        return None
    if now >= facts.proxy_access_ends:
        return Actor("PX")
    return Actor("PT" if now >= facts.turns_12 else "PC")


def _is_deceased(patient: Json) -> bool:
    return patient.get("deceasedBoolean") is True or "deceasedDateTime" in patient or "_deceasedDateTime" in patient


def _links(patient: Json) -> set[str]:
    return {str(one.get("other", {}).get("reference")) for one in patient.get("link", ()) if one.get("type") in _MERGED}


def _relation(related: Json, patient: str, person: Requester, policy: Policy) -> tuple[int, int] | None:
    """When this RelatedPerson row makes the person a relation of the patient, half open; None: it does not."""
    about = related.get("patient", {}).get("reference")
    if related.get("id") not in person.related_persons or about != f"Patient/{patient}" or related.get("active") is False:
        return None
    return is_in_period(related, policy.timezone)


def _own_account(policy: Policy, records: Sequence[Json]) -> int | None:
    """When a minor may have an account of his or her own, by the latest birth the records allow."""
    if policy.minor_account is None:
        return None
    turned = [aging.birthday_instant(one, policy.minor_account, policy.timezone, policy.feb29) for one in records]
    return max(one[1] for one in turned if one)


def _turning(policy: Policy, records: Sequence[Json], facts: AgeLimits) -> list[int]:
    """The instants at which age alone may change the judgement: of a birth date still to come, the birth."""
    if not facts.known:
        return [birth[0] for one in records if (birth := aging.birthday_instant(one, 0, policy.timezone, "mar1"))]
    oldest = [limit[1] for one in records if (limit := aging.birthday_instant(one, aging.OLDEST, policy.timezone, "mar1"))]
    own = _own_account(policy, records)
    return [facts.turns_12, facts.proxy_access_ends, facts.own_access_begins, *oldest, *([own] if own is not None else [])]


def _next(now: int, instants: Iterable[int]) -> int:
    return min((one for one in instants if one > now and one != MIN_INSTANT), default=MAX_INSTANT)
