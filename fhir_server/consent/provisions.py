"""Reads grants and restrictions for related persons from Consent resources (docs/policy.md, grants and restrictions).

The server understands the elements of its own grants. Anything else fails closed: a permit with an unknown element permits nothing,
a deny with an unknown element denies. All active Consents count: deny overrides permit, permits add up, and a newer Consent does not
replace an older one.  http://hl7.org/fhir/R4/consent.html
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.consent import intervals
from fhir_server.consent.intervals import Interval
from fhir_server.consent.policy import LEVELS
from fhir_server.resources.references import versioned_target

Json = Mapping[str, Any]
KIND: Final = "https://fhir-server.example/ig/CodeSystem/consent-kind"
LEVEL: Final = "https://fhir-server.example/ig/CodeSystem/proxy-level"

_RESOURCE = frozenset({
    "resourceType", "id", "meta", "language", "text", "contained", "extension", "identifier", "status", "scope", "category",
    "patient", "dateTime", "performer", "organization", "sourceAttachment", "sourceReference", "policy", "policyRule",
    "verification", "provision",
})  # fmt: skip
_PROVISION = frozenset({"id", "type", "period", "actor", "action", "purpose", "provision"})
# A deny provision that has no other element can be limited to the resources it names.
_DENY_PROVISION = frozenset({"id", "type", "period", "actor", "data"})
_ACTIONS = frozenset({"access", "use"})
_PURPOSES = frozenset({"PATRQT", "FAMRQT", "PWATRNY"})
# Types of actors that are never a related person; a Group may contain one.
_OTHER_ACTORS = frozenset({"Practitioner", "PractitionerRole", "Organization", "Device", "Patient"})


@dataclass(frozen=True, slots=True)
class ProxyProvision:
    """What a Consent says about a related person during [start, end), in microseconds since 1970 UTC.

    ``kind``    a grant of ``child`` or ``adult`` access, or a ``deny``
    ``levels``  of adult access: codes of the CodeSystem proxy-level
    ``rows``    the ``Type/id`` of the resources to which a deny is limited; empty: the whole record
    """

    related_person: str
    kind: Literal["child", "adult", "deny"]
    levels: frozenset[str]
    start: int
    end: int
    rows: frozenset[str] = frozenset()


def proxy_provisions(
    consents: Iterable[Json], related_person_ids: Iterable[str], *, patient: str, zone: ZoneInfo
) -> tuple[ProxyProvision, ...]:
    """All grants and restrictions of access to ``patient``'s record that these Consents hold for these related persons."""
    persons = tuple(related_person_ids)
    return tuple(
        provision
        for consent in consents
        if consent.get("status") == "active" and "patient-privacy" in _codes(consent.get("scope"))
        for person in persons
        for provision in _provisions_for(consent, person, patient, zone)
    )


def _provisions_for(consent: Json, person: str, patient: str, zone: ZoneInfo) -> Iterator[ProxyProvision]:
    grant = _grant_of(consent, patient)
    root = _dict(consent.get("provision"))
    bounds = sorted({MIN_INSTANT, MAX_INSTANT, *_bounds(root, zone)})
    for start, end in itertools.pairwise(bounds):
        outcomes = set(_outcomes(consent, root, grant is not None, person, start, zone))
        if "deny" in outcomes:
            yield ProxyProvision(person, "deny", frozenset(), start, end)
            continue
        if rows := outcomes - {"permit"}:
            yield ProxyProvision(person, "deny", frozenset(), start, end, frozenset(rows))
        if "permit" in outcomes and grant is not None:
            yield ProxyProvision(person, grant.kind, grant.levels, start, end)


class _Grant(NamedTuple):
    kind: Literal["child", "adult"]
    levels: frozenset[str]


def _grant_of(consent: Json, patient: str) -> _Grant | None:
    """The access that a Consent can grant; None unless it is a complete grant of this server's form for this patient."""
    codings = [coding for category in consent.get("category", ()) for coding in category.get("coding", ())]
    kinds = {coding.get("code") for coding in codings if coding.get("system") == KIND}
    levels = frozenset(str(coding.get("code")) for coding in codings if coding.get("system") == LEVEL)
    subject = f"Patient/{patient}"
    is_complete = (
        consent.keys() <= _RESOURCE
        and _name(consent.get("patient")) == subject
        and (any("uri" in policy for policy in consent.get("policy", ())) or "policyRule" in consent)
    )
    if is_complete and kinds == {"proxy-child"}:
        return _Grant("child", frozenset())
    performers = {_name(performer) for performer in consent.get("performer", ())}
    if is_complete and kinds == {"proxy-adult"} and levels and levels <= LEVELS and subject in performers:
        return _Grant("adult", levels)
    return None


def _outcomes(consent: Json, root: Json, is_grant: bool, person: str, at: int, zone: ZoneInfo) -> Iterator[str]:
    """``permit``, ``deny``, and the ``Type/id`` of each resource to which a deny is limited."""
    restriction = any("restriction" in _codes(category) for category in consent.get("category", ()))
    if restriction and root.get("type") == "deny" and _denies(root, person, at, zone):
        yield from _denied(root)
    # The root provision limits persons and time of the provisions in it. Its type can only repeat the base decision, deny.
    is_open = is_grant and root.get("type", "deny") == "deny" and _is_understood(root) and _is_in_period(root, at, zone) is True
    if "actor" in root and person not in _grantees(root):
        is_open = False
    for provision in _list(root.get("provision")):
        yield from _walk(provision, person, at, zone, is_open)


def _walk(provision: Json, person: str, at: int, zone: ZoneInfo, is_open: bool) -> Iterator[str]:
    if provision.get("type") != "permit":
        if _denies(provision, person, at, zone):
            yield from _denied(provision)
        return  # exceptions within a deny are ignored: they would widen access
    permits = is_open and _is_understood(provision) and _is_in_period(provision, at, zone) is True and person in _grantees(provision)
    if permits:
        yield "permit"
    for inner in _list(provision.get("provision")):
        yield from (outcome for outcome in _walk(inner, person, at, zone, False) if outcome != "permit")


def _is_understood(provision: Json) -> bool:
    actions = {code for action in provision.get("action", ()) for code in _codes(action)}
    purposes = {str(purpose.get("code")) for purpose in provision.get("purpose", ())}
    return (
        provision.keys() <= _PROVISION
        and actions <= _ACTIONS
        and ("access" in actions or "action" not in provision)
        and (not purposes or bool(purposes & _PURPOSES))
        and all(actor.keys() <= {"id", "role", "reference"} for actor in provision.get("actor", ()))
    )


def _denies(provision: Json, person: str, at: int, zone: ZoneInfo) -> bool:
    if _is_in_period(provision, at, zone) is False:
        return False
    actors = provision.get("actor", ())
    return not actors or any(_may_be(_dict(actor.get("reference")).get("reference"), person) for actor in actors)


def _denied(provision: Json) -> Iterator[str]:
    """The ``Type/id`` of the resources that a deny provision names if it has no unknown element, else ``deny`` for everything."""
    data = provision.get("data")
    rows = [_row(entry) for entry in _list(data)] if provision.keys() <= _DENY_PROVISION else []
    if rows and len(rows) == len(data or ()) and all(rows):
        yield from (row for row in rows if row)
    else:
        yield "deny"


def _row(data: Json) -> str | None:
    reference = _dict(data.get("reference")).get("reference")
    is_instance = data.keys() <= {"id", "meaning", "reference"} and data.get("meaning") == "instance"
    target = versioned_target(reference) if is_instance and isinstance(reference, str) else None
    return "/".join(target) if target else None


def _name(reference: Any) -> str | None:
    """``Type/id`` that a Reference names, with or without a version."""
    text = _dict(reference).get("reference")
    target = versioned_target(text) if isinstance(text, str) else None
    return "/".join(target) if target else None


def _may_be(reference: Any, person: str) -> bool:
    target = versioned_target(reference) if isinstance(reference, str) else None
    if target is None:
        return True
    return target[1] == person if target[0] == "RelatedPerson" else target[0] not in _OTHER_ACTORS


def _grantees(provision: Json) -> frozenset[str]:
    targets = (
        versioned_target(str(_dict(actor.get("reference")).get("reference")))
        for actor in provision.get("actor", ())
        if "GRANTEE" in _codes(actor.get("role"))
    )
    return frozenset(target[1] for target in targets if target and target[0] == "RelatedPerson")


def _period(provision: Json, zone: ZoneInfo) -> Interval | None:
    """The period of a provision, whose end includes the whole day (or month, year ...) given; None if it cannot be parsed."""
    period = _dict(provision.get("period"))
    if not period.keys() <= {"id", "start", "end"}:
        return None
    start = intervals.interval(str(period["start"]), zone) if "start" in period else (MIN_INSTANT, MIN_INSTANT)
    end = intervals.interval(str(period["end"]), zone) if "end" in period else (MAX_INSTANT, MAX_INSTANT)
    return (start[0], end[1]) if start and end else None


def _is_in_period(provision: Json, at: int, zone: ZoneInfo) -> bool | None:
    """Whether an instant lies in the period of a provision; None if the period cannot be parsed."""
    period = _period(provision, zone)
    return None if period is None else period[0] <= at < period[1]


def _bounds(provision: Json, zone: ZoneInfo) -> Iterator[int]:
    yield from _period(provision, zone) or ()
    for inner in _list(provision.get("provision")):
        yield from _bounds(inner, zone)


def period_of(resource: Json, zone: ZoneInfo) -> Interval | None:
    """The ``period`` of a resource such as RelatedPerson, without limits if absent; None if it cannot be parsed."""
    return _period(resource, zone)


def _codes(concept: Any) -> frozenset[str]:
    return frozenset(str(coding.get("code")) for coding in _dict(concept).get("coding", ()))


def _dict(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
