"""The role of a person toward a patient at an instant: limits to the microsecond, grants, restrictions, death."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any

import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import intervals
from fhir_server.consent.policy import load
from fhir_server.consent.relationships import Requester, proxy_provisions, resolve_relationship

POLICY = load("optum", timezone="America/Chicago")
IG = "https://fhir-server.example/ig/CodeSystem"
PARENT = Requester("patient", "parent", None, frozenset({"r1"}))
SELF = Requester("patient", "child", None, frozenset())
RELATED = {"resourceType": "RelatedPerson", "id": "r1", "active": True, "patient": {"reference": "Patient/child"}}


def instant(text: str) -> int:
    return intervals.micros(datetime.fromisoformat(text))


T12, T18 = instant("2020-06-15T05:00Z"), instant("2026-06-15T05:00Z")
CHILD = {"resourceType": "Patient", "id": "child", "birthDate": "2008-06-15"}
ADULT = {"resourceType": "Patient", "id": "child", "birthDate": "1980-01-01"}


def grant(kind: str = "proxy-child", *levels: str, period: dict[str, str] | None = None, **root: Any) -> dict[str, Any]:
    permit: dict[str, Any] = {
        "type": "permit",
        "actor": [{"role": {"coding": [{"code": "GRANTEE"}]}, "reference": {"reference": "RelatedPerson/r1"}}],
    }
    if period:
        permit["period"] = period
    return {
        "resourceType": "Consent", "id": "c1", "status": "active",
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
        "category": [
            {"coding": [{"system": "http://loinc.org", "code": "59284-0"}]},
            {"coding": [{"system": f"{IG}/consent-kind", "code": kind}]},
            *({"coding": [{"system": f"{IG}/proxy-level", "code": level}]} for level in levels),
        ],
        "patient": {"reference": "Patient/child"}, "performer": [{"reference": "Patient/child"}],
        "policy": [{"uri": "https://fhir-server.example/policy"}], "provision": {"provision": [permit]}, **root,
    }  # fmt: skip


def kind(
    now: int, *consents: dict[str, Any], patient: dict[str, Any] | None = CHILD, person: Requester = PARENT, **more: Any
) -> str | None:
    related = more.pop("related", [RELATED])
    judged = resolve_relationship(POLICY, now, patient=patient, person=person, related=related, consents=consents, **more)
    return None if judged.actor is None else ":".join(filter(None, [judged.actor.kind, "+".join(sorted(judged.actor.levels))]))


@pytest.mark.parametrize(
    ("now", "expected"),
    [(T12 - 1, "PC"), (T12, "PT"), (T12 + 1, "PT"), (T18 - 1, "PT"), (T18, "PX"), (T18 + 1, "PX")],
)
def test_a_child_proxy_changes_at_the_birthday_to_the_microsecond(now: int, expected: str) -> None:
    assert kind(now, grant()) == expected


@pytest.mark.parametrize(("now", "expected"), [(T12, None), (T18 - 1, None), (T18, "AS"), (T18 + 1, "AS")])
def test_own_access_begins_at_the_eighteenth_birthday(now: int, expected: str | None) -> None:
    assert kind(now, person=SELF) == expected


def test_relationship_states_when_it_expires() -> None:
    def until(now: int, person: Requester, *consents: dict[str, Any]) -> int:
        return resolve_relationship(POLICY, now, patient=CHILD, person=person, related=[RELATED], consents=consents).valid_until

    assert until(T12 - 1, PARENT, grant()) == T12
    assert until(T12, PARENT, grant()) == T18
    ends = grant(period={"end": "2021-01-01"})
    assert until(T12, PARENT, ends) == instant("2021-01-02T06:00Z")
    starts = grant(period={"start": "2021-01-01"})
    assert until(T12, PARENT, starts) == instant("2021-01-01T06:00Z")


def test_imprecise_birth_date_leaves_a_gap_without_access() -> None:
    patient = {**CHILD, "birthDate": "2008"}
    off, on = instant("2026-01-01T06:00Z"), instant("2026-12-31T06:00Z")
    assert [kind(now, grant(), patient=patient) for now in (off - 1, off)] == ["PT", "PX"]
    assert [kind(now, person=SELF, patient=patient) for now in (off, on - 1, on)] == [None, None, "AS"]


@pytest.mark.parametrize("birth", [{}, {"birthDate": "2040-01-01"}, {"birthDate": "not known"}])
def test_unusable_birth_date_denies_patient_and_proxies(birth: dict[str, str]) -> None:
    patient = {"resourceType": "Patient", "id": "child", **birth}
    assert kind(T18, grant(), grant("proxy-adult", "full"), patient=patient) is None
    assert kind(T18, person=SELF, patient=patient) is None


@pytest.mark.parametrize("death", [{"deceasedBoolean": True}, {"deceasedDateTime": "2026-07-01"}, {"_deceasedDateTime": {"id": "x"}}])
def test_recorded_death_ends_access(death: dict[str, Any]) -> None:
    assert kind(T12, grant(), patient={**CHILD, **death}) is None
    assert kind(T18, person=SELF, patient={**CHILD, **death}) is None
    assert kind(T12, grant(), patient={**CHILD, "deceasedBoolean": False}) == "PT"


@pytest.mark.parametrize("status", ["draft", "proposed", "rejected", "inactive", "entered-in-error"])
def test_only_active_consent_grants_access(status: str) -> None:
    assert kind(T12, grant(status=status)) is None
    assert kind(T12, grant(status="active")) == "PT"


@pytest.mark.parametrize(
    ("period", "inside", "outside"),
    [
        ({"start": "2021-01-01"}, "2021-01-01T06:00:00Z", "2021-01-01T05:59:59.999999Z"),
        ({"end": "2021-01-01"}, "2021-01-02T05:59:59.999999Z", "2021-01-02T06:00:00Z"),
        ({"end": "2021-01"}, "2021-02-01T05:59:59.999999Z", "2021-02-01T06:00:00Z"),
        ({"end": "2021"}, "2022-01-01T05:59:59.999999Z", "2022-01-01T06:00:00Z"),
        ({"end": "2021-01-01T12:00:00Z"}, "2021-01-01T12:00:00.999999Z", "2021-01-01T12:00:01Z"),
    ],
)
def test_consent_applies_within_its_period_to_the_microsecond(period: dict[str, str], inside: str, outside: str) -> None:
    assert kind(instant(inside), grant(period=period)) == "PT"
    assert kind(instant(outside), grant(period=period)) is None


def test_unreadable_consent_period_grants_no_access() -> None:
    assert kind(T12, grant(period={"end": "soon"})) is None


def test_related_person_must_be_active_current_and_of_this_patient() -> None:
    assert kind(T12, grant(), related=[{**RELATED, "active": False}]) is None
    assert kind(T12, grant(), related=[{**RELATED, "patient": {"reference": "Patient/other"}}]) is None
    assert kind(T12, grant(), related=[{**RELATED, "period": {"end": "2019"}}]) is None
    assert kind(T12, grant(), related=[]) is None
    assert kind(T12, grant(), person=Requester("patient", None, None, frozenset({"r2"}))) is None
    assert kind(T12, grant(), related=[{**RELATED, "period": {"start": "2019"}}]) == "PT"


def test_adult_proxy_needs_adult_patient_as_performer_and_a_level() -> None:
    full = grant("proxy-adult", "full")
    assert kind(T18, full, patient=ADULT) == "PA:full"
    assert kind(T18 - 1, full) is None
    assert kind(T18, full) == "PA:full"
    assert kind(T18, {**full, "performer": [{"reference": "Practitioner/p"}]}, patient=ADULT) is None
    assert kind(T18, grant("proxy-adult"), patient=ADULT) is None
    assert kind(T18, grant("proxy-adult", "everything"), patient=ADULT) is None


def test_proxy_levels_add_up_across_consents() -> None:
    assert kind(T18, grant("proxy-adult", "billing"), grant("proxy-adult", "standard"), patient=ADULT) == "PA:billing+standard"
    assert kind(T18, grant(), grant("proxy-adult", "standard")) == "PA:standard"


def test_expired_child_proxy_does_not_become_adult_proxy() -> None:
    assert kind(T18, grant(), patient=ADULT) == "PX"


def restriction(**provision: Any) -> dict[str, Any]:
    consent = grant("restriction")
    consent["provision"] = {"provision": [{"type": "deny", **provision}]}
    return consent


@pytest.mark.parametrize(
    "provision",
    [
        {},
        {"actor": [{"role": {"text": "mother"}, "reference": {"reference": "RelatedPerson/r1"}}]},
        {"actor": [{"role": {}, "reference": {"reference": "Group/family"}}]},
        {"actor": [{"role": {}, "reference": {"reference": "https://elsewhere.example/fhir/RelatedPerson/7"}}]},
        {"actor": [{"role": {}}]},
        {"modifierExtension": [{"url": "http://example.org/unknown", "valueBoolean": True}]},
        {"securityLabel": [{"code": "R"}]},
        {"period": {"start": "someday"}},
    ],
)  # fmt: skip
def test_deny_overrides_grants_even_if_not_understood(provision: dict[str, Any]) -> None:
    assert kind(T12, grant(), restriction(**provision)) is None
    assert kind(T12, restriction(**provision), grant()) is None


@pytest.mark.parametrize(
    "provision",
    [
        {"actor": [{"role": {}, "reference": {"reference": "RelatedPerson/r2"}}]},
        {"actor": [{"role": {}, "reference": {"reference": "Practitioner/p1"}}]},
        {"period": {"end": "2019-12-31"}},
    ],
)
def test_deny_for_other_person_or_period_has_no_effect(provision: dict[str, Any]) -> None:
    assert kind(T12, grant(), restriction(**provision)) == "PT"


def changed(path: str, value: Any) -> dict[str, Any]:
    consent = copy.deepcopy(grant())
    node: Any = consent
    *steps, last = path.split(".")
    for step in steps:
        node = node[int(step)] if step.isdecimal() else node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return consent


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provision.provision.0.type", "deny"), ("provision.provision.0.type", None), ("provision.provision.0.actor", None),
        ("provision.provision.0.actor.0.role", {"coding": [{"code": "CST"}]}),
        ("provision.provision.0.actor.0.extension", [{"url": "u"}]), ("provision.provision.0.extension", [{"url": "u"}]),
        ("provision.provision.0.modifierExtension", [{"url": "u"}]), ("provision.provision.0.securityLabel", [{"code": "N"}]),
        ("provision.provision.0.class", [{"code": "Observation"}]), ("provision.provision.0.code", [{"text": "x"}]),
        ("provision.provision.0.action", [{"coding": [{"code": "disclose"}]}]),
        ("provision.provision.0.purpose", [{"code": "HMARKT"}]),
        ("provision.provision.0.futureElement", True), ("provision.type", "permit"),
        ("provision.modifierExtension", [{"url": "u"}]),
        ("modifierExtension", [{"url": "u"}]), ("futureElement", 1), ("policy", None),
        ("scope", {"coding": [{"code": "research"}]}),
        ("patient", {"reference": "Patient/other"}),
        ("category", [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}]),
        ("provision.provision.0.provision", [{"type": "deny"}]), ("provision", None),
    ],
)  # fmt: skip
def test_consent_with_unknown_content_grants_no_access(path: str, value: Any) -> None:
    assert kind(T12, changed(path, value)) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provision.type", "deny"), ("provision.provision.0.action", [{"coding": [{"code": "access"}]}]),
        ("provision.provision.0.purpose", [{"code": "FAMRQT"}]), ("provision.period", {"start": "2010"}),
        ("policyRule", {"coding": [{"code": "OPTIN"}]}), ("text", {"status": "generated", "div": "<div/>"}),
    ],
)  # fmt: skip
def test_consent_with_understood_content_grants_access(path: str, value: Any) -> None:
    assert kind(T12, changed(path, value)) == "PT"


def test_nested_deny_suspends_a_grant_for_its_period() -> None:
    consent = changed("provision.provision.0.provision", [{"type": "deny", "period": {"start": "2021", "end": "2021"}}])
    assert kind(T12, consent) == "PT"
    assert kind(instant("2021-06-01T00:00Z"), consent) is None
    assert kind(instant("2022-06-01T00:00Z"), consent) == "PT"
    found = proxy_provisions([consent], ["r1"], patient="child", zone=POLICY.timezone)
    assert [one.kind for one in found] == ["child", "deny", "child"]


def test_person_acts_in_one_role_per_patient() -> None:
    own = Requester("patient", "child", None, frozenset({"r1"}))
    assert kind(T18, grant(), person=own) == "AS"
    for role in ("clinician", "billing", "privacy", "nonsense"):
        assert kind(T12, grant(), person=Requester(role, None, "p1", frozenset({"r1"}))) is None
    assert kind(T12, grant(), patient=None) is None


def test_consents_of_two_parents_are_independent() -> None:
    other = copy.deepcopy(grant())
    other["provision"]["provision"][0]["actor"][0]["reference"]["reference"] = "RelatedPerson/r2"
    second = Requester("patient", None, None, frozenset({"r2"}))
    related = [RELATED, {**RELATED, "id": "r2"}]
    assert kind(T12, {**grant(), "status": "inactive"}, other, related=related) is None
    assert kind(T12, {**grant(), "status": "inactive"}, other, related=related, person=second) == "PT"


def test_merged_record_uses_its_strictest_age_limits() -> None:
    linked = {"resourceType": "Patient", "id": "old", "birthDate": "2000-01-01"}
    patient = {**CHILD, "link": [{"type": "replaces", "other": {"reference": "Patient/old"}}]}
    assert kind(T12 - 1, grant(), patient=patient) is None
    assert kind(T12 - 1, grant(), patient=patient, linked=[linked]) == "PX"
    assert kind(T18 - 1, person=SELF, patient=patient, linked=[linked]) is None
    assert kind(T18, person=SELF, patient=patient, linked=[linked]) == "AS"


def test_minors_have_own_access_only_if_policy_allows(tmp_path) -> None:
    path = tmp_path / "house.json"
    path.write_text('{"policy": "house", "extends": "optum", "timezone": "America/Chicago", "minor_account": {"min_age": 13}}')
    house = load(str(path))
    t13 = instant("2021-06-15T05:00Z")
    found = [resolve_relationship(house, now, patient=CHILD, person=SELF, related=[], consents=[]) for now in (t13 - 1, t13, T18)]
    assert [one.actor and one.actor.kind for one in found] == [None, "MS", "AS"]
    assert [found[0].valid_until, found[1].valid_until] == [t13, T18]


def test_relationship_of_unrelated_person_never_changes() -> None:
    judged = resolve_relationship(POLICY, T18, patient=None, person=PARENT, related=[], consents=[])
    assert (judged.actor, judged.valid_until) == (None, MAX_INSTANT)
