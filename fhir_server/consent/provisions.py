"""FHIR Consent -> grants and refusals for related persons, as stretches of time.

Understood is what our own grants are made of (``docs/policy.md``, grants); anything else fails closed: a permit with
something unknown in it permits nothing, a deny with something unknown in it denies.  All active Consents count; deny
overrides, permits add up, and a newer one does not replace an older.  http://hl7.org/fhir/R4/consent.html
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.consent import intervals
from fhir_server.consent.policy import LEVELS

Json = Mapping[str, Any]
KIND: Final = "https://fhir-server.example/ig/CodeSystem/consent-kind"
LEVEL: Final = "https://fhir-server.example/ig/CodeSystem/proxy-level"

_RESOURCE = frozenset({
    "resourceType", "id", "meta", "language", "text", "contained", "extension", "identifier", "status", "scope", "category",
    "patient", "dateTime", "performer", "organization", "sourceAttachment", "sourceReference", "policy", "policyRule",
    "verification", "provision",
})  # fmt: skip
_PROVISION = frozenset({"id", "type", "period", "actor", "action", "purpose", "provision"})
# A refusal with nothing else in it can be limited to the rows it names.
_REFUSAL = frozenset({"id", "type", "period", "actor", "data"})
_LITERAL = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_ACTIONS = frozenset({"access", "use"})
_PURPOSES = frozenset({"PATRQT", "FAMRQT", "PWATRNY"})
_RELATED = re.compile(r"RelatedPerson/([A-Za-z0-9\-.]{1,64})")
# Actors that are certainly not a related person; a Group may contain one.
_OTHERS = re.compile(r"(?:Practitioner|PractitionerRole|Organization|Device|Patient)/[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class ProxyProvision:
    """What a Consent says of a related person during [start, end) in microseconds: ``child`` or ``adult`` access, or ``deny``.

    ``rows``  the ``Type/id`` that a refusal is limited to; empty: the whole record.
    """

    related_person: str
    kind: Literal["child", "adult", "deny"]
    level: str
    start: int
    end: int
    rows: frozenset[str] = frozenset()


def proxy_provisions(
    consents: Iterable[Json], related_person_ids: Iterable[str], *, patient: str, zone: ZoneInfo
) -> tuple[ProxyProvision, ...]:
    """Every grant and refusal of access to ``patient``'s record that these Consents hold for these related persons."""
    people = tuple(related_person_ids)
    return tuple(
        grant
        for consent in consents
        if consent.get("status") == "active" and "patient-privacy" in _codes(consent.get("scope"))
        for person in people
        for grant in _of(consent, person, patient, zone)
    )


def _of(consent: Json, person: str, patient: str, zone: ZoneInfo) -> Iterator[ProxyProvision]:
    kind, level = _kind(consent, patient)
    root = _dict(consent.get("provision"))
    bounds = sorted({MIN_INSTANT, MAX_INSTANT, *_bounds(root, zone)})
    for start, end in itertools.pairwise(bounds):
        outcomes = set(_outcomes(consent, root, kind, person, start, zone))
        if "deny" in outcomes:
            yield ProxyProvision(person, "deny", "", start, end)
            continue
        if rows := outcomes - {"permit"}:
            yield ProxyProvision(person, "deny", "", start, end, frozenset(rows))
        if "permit" in outcomes and kind is not None:
            yield ProxyProvision(person, kind, level, start, end)


def _kind(consent: Json, patient: str) -> tuple[Literal["child", "adult"] | None, str]:
    """The sort of access a Consent can give: None if it is not a grant of ours, whole and for this patient."""
    codings = [coding for category in consent.get("category", ()) for coding in category.get("coding", ())]
    kinds = {coding.get("code") for coding in codings if coding.get("system") == KIND}
    levels = {str(coding.get("code")) for coding in codings if coding.get("system") == LEVEL}
    subject = f"Patient/{patient}"
    sound = (
        consent.keys() <= _RESOURCE
        and _dict(consent.get("patient")).get("reference") == subject
        and (any("uri" in one for one in consent.get("policy", ())) or "policyRule" in consent)
    )
    if sound and kinds == {"proxy-child"}:
        return "child", ""
    performers = {one.get("reference") for one in consent.get("performer", ())}
    if sound and kinds == {"proxy-adult"} and levels and levels <= LEVELS and subject in performers:
        return "adult", "+".join(sorted(levels))
    return None, ""


def _outcomes(consent: Json, root: Json, kind: str | None, person: str, at: int, zone: ZoneInfo) -> Iterator[str]:
    """``permit``, ``deny``, and the ``Type/id`` of each row that is refused alone."""
    restriction = any("restriction" in _codes(category) for category in consent.get("category", ()))
    if restriction and root.get("type") == "deny" and _refuses(root, person, at, zone):
        yield from _refused(root)
    # The root says for whom and when its provisions hold; its type can only repeat our base decision, which is deny.
    open_root = kind is not None and root.get("type", "deny") == "deny" and _understood(root) and _during(root, at, zone) is True
    if "actor" in root and person not in _grantees(root):
        open_root = False
    for provision in _list(root.get("provision")):
        yield from _walk(provision, person, at, zone, open_root)


def _walk(provision: Json, person: str, at: int, zone: ZoneInfo, is_open: bool) -> Iterator[str]:
    if provision.get("type") != "permit":
        if _refuses(provision, person, at, zone):
            yield from _refused(provision)
        return  # what a refusal excepts stays refused: we do not widen on the strength of a detail
    permits = is_open and _understood(provision) and _during(provision, at, zone) is True and person in _grantees(provision)
    if permits:
        yield "permit"
    for inner in _list(provision.get("provision")):
        yield from (one for one in _walk(inner, person, at, zone, False) if one != "permit")


def _understood(provision: Json) -> bool:
    actions = {code for one in provision.get("action", ()) for code in _codes(one)}
    purposes = {str(one.get("code")) for one in provision.get("purpose", ())}
    return (
        provision.keys() <= _PROVISION
        and actions <= _ACTIONS
        and ("access" in actions or "action" not in provision)
        and (not purposes or bool(purposes & _PURPOSES))
        and all(actor.keys() <= {"id", "role", "reference"} for actor in provision.get("actor", ()))
    )


def _refuses(provision: Json, person: str, at: int, zone: ZoneInfo) -> bool:
    if _during(provision, at, zone) is False:
        return False
    actors = provision.get("actor", ())
    return not actors or any(_may_be(_dict(actor.get("reference")).get("reference"), person) for actor in actors)


def _refused(provision: Json) -> Iterator[str]:
    """What a refusal is about: the single rows it names, if that is all it says, else everything."""
    data = provision.get("data")
    rows = [_row(one) for one in _list(data)] if provision.keys() <= _REFUSAL else []
    if rows and len(rows) == len(data or ()) and all(rows):
        yield from (row for row in rows if row)
    else:
        yield "deny"


def _row(data: Json) -> str | None:
    reference = _dict(data.get("reference")).get("reference")
    plain = data.keys() <= {"id", "meaning", "reference"} and data.get("meaning") == "instance"
    return reference if plain and isinstance(reference, str) and _LITERAL.fullmatch(reference) else None


def _may_be(reference: Any, person: str) -> bool:
    if not isinstance(reference, str):
        return True
    related = _RELATED.fullmatch(reference)
    return related[1] == person if related else _OTHERS.fullmatch(reference) is None


def _grantees(provision: Json) -> frozenset[str]:
    found = (
        _RELATED.fullmatch(str(_dict(actor.get("reference")).get("reference")))
        for actor in provision.get("actor", ())
        if "GRANTEE" in _codes(actor.get("role"))
    )
    return frozenset(one[1] for one in found if one)


def _period(provision: Json, zone: ZoneInfo) -> tuple[int, int] | None:
    """The provision's period, half open, its end inclusive of the unit given; None if it cannot be read."""
    period = _dict(provision.get("period"))
    if not period.keys() <= {"id", "start", "end"}:
        return None
    start = intervals.span(str(period["start"]), zone) if "start" in period else (MIN_INSTANT, MIN_INSTANT)
    end = intervals.span(str(period["end"]), zone) if "end" in period else (MAX_INSTANT, MAX_INSTANT)
    return (start[0], end[1]) if start and end else None


def _during(provision: Json, at: int, zone: ZoneInfo) -> bool | None:
    """Whether an instant lies in the provision's period; None if the period cannot be read."""
    period = _period(provision, zone)
    return None if period is None else period[0] <= at < period[1]


def _bounds(provision: Json, zone: ZoneInfo) -> Iterator[int]:
    yield from _period(provision, zone) or ()
    for inner in _list(provision.get("provision")):
        yield from _bounds(inner, zone)


def is_in_period(resource: Json, zone: ZoneInfo) -> tuple[int, int] | None:
    """The ``period`` of a resource such as RelatedPerson, half open; None if it cannot be read."""
    return _period(resource, zone)


def _codes(concept: Any) -> frozenset[str]:
    return frozenset(str(coding.get("code")) for coding in _dict(concept).get("coding", ()))


def _dict(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
