"""Notes on what an access level includes and excludes: on the sharing page, and for a person who opens another's record."""

from __future__ import annotations

import pytest

from fhir_server.access.access_summary import TOPICS, describe_level, exclusion_note, summarize_access
from fhir_server.consent import policy as policies
from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.policy import ActorKind
from fhir_server.consent.visibility_classes import VisibilityClass
from tests.portal.environment import World

POLICIES = ("optum", "ssm", "strict")
LEVELS = ("standard", "full", "scheduling", "billing")


def adult_proxy(*levels: str) -> Actor:
    return Actor(ActorKind.ADULT_PROXY, frozenset(levels))


PROXIES = [
    *(Actor(kind) for kind in (ActorKind.TEEN_PROXY, ActorKind.CHILD_PROXY)),
    *(adult_proxy(*levels) for levels in (("standard",), ("full",), ("billing", "standard"))),
]


def denied(name: str, actor: Actor) -> set[str]:
    policy = policies.load(name)
    return {topic for data, topic in TOPICS.items() if not permits(policy, actor, VisibilityClass(data))}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("actor", PROXIES)
def test_exclusion_note_lists_exactly_the_fully_denied_data(name: str, actor: Actor) -> None:
    listed = exclusion_note(policies.load(name), actor).partition("Not included: ")[2]
    assert {topic for topic in TOPICS.values() if topic in listed} == denied(name, actor)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("level", "included"), [("scheduling", "visits"), ("billing", "bills and insurance")])
def test_exclusion_note_of_a_narrow_level_lists_what_is_included(name: str, level: str, included: str) -> None:
    note = exclusion_note(policies.load(name), adult_proxy(level))
    assert note.startswith(f"Includes only {included}.")
    assert ("Not included: sensitive content" in note) == (level == "scheduling")


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("level", LEVELS)
def test_sharing_page_and_record_list_agree_on_each_level(name: str, level: str) -> None:
    policy = policies.load(name)
    included, _, excluded = describe_level(policy, level).partition("Does not include")
    note = exclusion_note(policy, adult_proxy(level))
    summary = summarize_access(policy, adult_proxy(level))
    assert all(topic in included for topic in summary.included) and all(topic in excluded for topic in summary.excluded)
    assert ("sensitive content" in excluded) == (not summary.sensitive_included)
    assert ("sensitive content" in note) == summary.sensitive_excluded


@pytest.mark.parametrize("name", POLICIES)
def test_every_topic_is_a_data_class_of_the_policy(name: str) -> None:
    assert policies.load(name).classes >= TOPICS.keys()


@pytest.mark.parametrize("actor", [Actor(kind) for kind in (ActorKind.ADULT_SELF, ActorKind.CLINICIAN, ActorKind.BILLING_OFFICE)])
def test_exclusion_note_is_empty_for_self_clinician_and_billing(actor: Actor) -> None:
    assert exclusion_note(policies.load("strict"), actor) == ""


def test_start_page_shows_the_exclusion_note_to_a_teen_proxy(world: World) -> None:
    text = world.signed_in("parent-a").get("/").text
    excluded = "diagnoses, doctors&#39; notes, procedures, care plans and content that is private to teenagers"
    assert f"Not included: {excluded} (such as sexual or mental health)." in text
