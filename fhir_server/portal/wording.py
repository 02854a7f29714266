"""Levels and relationships in the words of the pages."""

from __future__ import annotations

from typing import Final

from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.policy import ActorKind, Policy
from fhir_server.consent.visibility_classes import VisibilityClass

# CodeSystem proxy-level, from most to least used
LEVELS: Final[dict[str, str]] = {
    "standard": "Standard",
    "full": "Full",
    "scheduling": "Visits only",
    "billing": "Bills only",
}
_TOPICS: Final = (
    ("visits", (VisibilityClass("visit"),)),
    ("test results", (VisibilityClass("lab"),)),
    ("medicines", (VisibilityClass("medication"),)),
    ("diagnoses", (VisibilityClass("condition"),)),
    ("vaccinations", (VisibilityClass("immunization"),)),
    ("doctors' notes", (VisibilityClass("note"),)),
    ("bills", (VisibilityClass("billing"),)),
    ("insurance", (VisibilityClass("coverage"),)),
    (
        "sensitive content (such as sexual or mental health)",
        tuple(VisibilityClass(data, frozenset({label})) for data in ("lab", "visit", "medication") for label in ("HIV", "MH", "SUD")),
    ),
)

# v3-RoleCode: code -> (word on the page, the code system's display)
RELATIONSHIPS: Final[dict[str, tuple[str, str]]] = {
    "SPS": ("Husband, wife or partner", "spouse"),
    "PRN": ("Parent", "parent"),
    "CHILD": ("Son or daughter", "child"),
    "SIB": ("Brother or sister", "sibling"),
    "FAMMEMB": ("Other relative", "family member"),
    "FRND": ("Friend", "unrelated friend"),
}


def describe_level(policy: Policy, level: str) -> str:
    """What a grant of this level opens, and what not, asked of the policy itself."""
    actor = Actor(ActorKind.ADULT_PROXY, frozenset({level}))
    # A topic of which any part opens counts as opened: whoever decides must not be told less than what happens.
    judged = [(topic, any(permits(policy, actor, key) for key in keys)) for topic, keys in _TOPICS]
    included, closed = ([topic for topic, opens in judged if opens is wanted] for wanted in (True, False))
    return _sentence("Opens", included) + (" " + _sentence("Leaves out", closed) if closed else "")


def _sentence(verb: str, topics: list[str]) -> str:
    listed = " and ".join(filter(None, [", ".join(topics[:-1]), *topics[-1:]]))
    return f"{verb} {listed or 'nothing'}."
