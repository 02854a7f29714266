"""A proxy is shown which kinds of information an access leaves out."""

from __future__ import annotations

import pytest

from fhir_server.access.record_choices import exclusion_note
from fhir_server.consent import policy as policies
from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.policy import ActorKind
from fhir_server.consent.visibility_classes import VisibilityClass
from tests.portal.environment import World

KINDS = {"test results": "lab", "visits": "visit", "medicines": "medication", "diagnoses": "condition", "doctors' notes": "note"}


@pytest.mark.parametrize("name", ["optum", "ssm", "strict"])
@pytest.mark.parametrize(
    "actor",
    [
        Actor(ActorKind.TEEN_PROXY),
        Actor(ActorKind.CHILD_PROXY),
        *(Actor(ActorKind.ADULT_PROXY, frozenset(levels)) for levels in (["standard"], ["full"], ["billing", "standard"])),
    ],
)
def test_exclusion_note_lists_exactly_the_fully_denied_data(name: str, actor: Actor) -> None:
    policy = policies.load(name)
    note = exclusion_note(policy, actor).partition(" are not included at all.")[0].rpartition(". ")[2].lower()
    told = {words for words in KINDS if words in note and "not included at all" in exclusion_note(policy, actor)}
    assert told == {words for words, data in KINDS.items() if not permits(policy, actor, VisibilityClass(data))}


@pytest.mark.parametrize("actor", [Actor(ActorKind.ADULT_SELF), Actor(ActorKind.CLINICIAN), Actor(ActorKind.BILLING_OFFICE)])
def test_exclusion_note_is_empty_for_self_clinician_and_billing(actor: Actor) -> None:
    assert exclusion_note(policies.load("strict"), actor) == ""


def test_start_page_shows_the_exclusion_note_to_a_teen_proxy(world: World) -> None:
    text = world.signed_in("parent-a").get("/").text
    assert "Diagnoses, doctors&#39; notes, procedures and care plans are not included at all." in text
    assert "private to teenagers are not included" in text
