"""Describes in plain words what an access level includes and excludes, computed from the policy.

Two pages use it: friends and family access (:func:`describe_level`), and the list of records that a person may open
(:func:`exclusion_note`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_server.consent.decision import Actor, permits
from fhir_server.consent.policy import ActorKind, Policy
from fhir_server.consent.visibility_classes import VisibilityClass

# Data class -> its name on pages. Data classes that people do not ask for by name are left out.
TOPICS: Final[dict[str, str]] = {
    "visit": "visits",
    "lab": "test results",
    "imaging": "imaging",
    "medication": "medicines",
    "allergy": "allergies",
    "condition": "diagnoses",
    "immunization": "vaccinations",
    "note": "doctors' notes",
    "procedure": "procedures",
    "careplan": "care plans",
    "billing": "bills",
    "coverage": "insurance",
}
# Data classes and labels that stand for sensitive content as a whole
_SENSITIVE_DATA: Final = ("visit", "lab", "medication")
_SENSITIVE_LABELS: Final = ("HIV", "MH", "SUD")
_SENSITIVE: Final = "sensitive content (such as sexual or mental health)"
_TEEN_PRIVATE: Final = "content that is private to teenagers (such as sexual or mental health)"
_FEW: Final = 2  # up to this many included topics, a note lists them instead of the excluded topics


@dataclass(frozen=True, slots=True)
class AccessSummary:
    """What an actor may see, by topic.

    ``included``, ``excluded``  the topics of which the actor may see ordinary content, and all others
    ``sensitive_included``      whether the actor may see some sensitive content
    ``sensitive_excluded``      whether some sensitive content of the included topics is hidden from the actor
    """

    included: tuple[str, ...]
    excluded: tuple[str, ...]
    sensitive_included: bool
    sensitive_excluded: bool


def summarize_access(policy: Policy, actor: Actor) -> AccessSummary:
    """Ask the policy about each topic, with and without sensitivity labels."""
    included = [data for data in TOPICS if permits(policy, actor, VisibilityClass(data))]
    return AccessSummary(
        included=tuple(TOPICS[data] for data in included),
        excluded=tuple(topic for data, topic in TOPICS.items() if data not in included),
        sensitive_included=any(_sensitive_decisions(policy, actor, _SENSITIVE_DATA)),
        sensitive_excluded=not all(_sensitive_decisions(policy, actor, [data for data in _SENSITIVE_DATA if data in included])),
    )


def describe_level(policy: Policy, level: str) -> str:
    """Return two sentences for the person who shares a record: what a grant of ``level`` includes, and what it does not.

    Sensitive content counts as included if the policy permits any of it, so that the text never understates what is shared.
    """
    summary = summarize_access(policy, Actor(ActorKind.ADULT_PROXY, frozenset({level})))
    included = [*summary.included, *([_SENSITIVE] if summary.sensitive_included else [])]
    excluded = [*summary.excluded, *([] if summary.sensitive_included else [_SENSITIVE])]
    sentences = [f"Includes {_join(included, 'and') or 'nothing'}."]
    if excluded:
        sentences.append(f"Does not include {_join(excluded, 'or')}.")
    return " ".join(sentences)


def exclusion_note(policy: Policy, actor: Actor) -> str:
    """Return what a person who acts for another cannot see; "" if nothing is excluded or the actor is not a proxy.

    Without the note, an empty list of diagnoses would look like good health to a proxy who may not see diagnoses.
    """
    if actor.kind not in (ActorKind.CHILD_PROXY, ActorKind.TEEN_PROXY, ActorKind.ADULT_PROXY):
        return ""
    summary = summarize_access(policy, actor)
    is_narrow = len(summary.included) <= _FEW
    excluded = [] if is_narrow else [*summary.excluded]
    if summary.sensitive_excluded:
        excluded.append(_TEEN_PRIVATE if actor.kind is ActorKind.TEEN_PROXY else _SENSITIVE)
    included = f"Includes only {_join(summary.included, 'and') or 'basic information about the person'}." if is_narrow else ""
    return " ".join(filter(None, [included, f"Not included: {_join(excluded, 'and')}." if excluded else ""]))


def _sensitive_decisions(policy: Policy, actor: Actor, data_classes: Iterable[str]) -> list[bool]:
    return [permits(policy, actor, VisibilityClass(data, frozenset({label}))) for data in data_classes for label in _SENSITIVE_LABELS]


def _join(topics: Sequence[str], conjunction: str) -> str:
    return f" {conjunction} ".join(filter(None, [", ".join(topics[:-1]), *topics[-1:]]))
