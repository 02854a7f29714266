"""Decides whether an actor may see data of a visibility class: pure functions of policy, actor and class.

A deny rule overrides permit rules, and what no rule permits is denied; so is an unknown actor, data class or label. Time is no
argument: :mod:`fhir_server.consent.relationships` determines which actor a person is at an instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fhir_server.consent.policy import ACTORS, LEVELS, ActorKind, Policy, Rule, WriteRule
from fhir_server.consent.visibility_classes import HELD, LABELS, SPECIFIC, UNRESOLVED, VisibilityClass

# They treat the patient, so they see results before these are released to the patient.
_TREATING: Final = frozenset({ActorKind.CLINICIAN, ActorKind.BREAK_GLASS})
# Labels that need no clearance: UNRESOLVED comes with UNCLASSIFIED, and SPECIFIC says which rows must be named by another.
_NO_CLEARANCE: Final = frozenset({UNRESOLVED, SPECIFIC})
_NO_LEVEL: Final = frozenset({""})


@dataclass(frozen=True, slots=True, repr=False)
class Actor:
    """The caller in the policy's terms.

    ``levels``     of an adult proxy: the levels of the grants; they add up
    ``clearance``  of a backend: the labels that it may receive; ``*`` stands for everything
    """

    kind: ActorKind
    levels: frozenset[str] = frozenset()
    clearance: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        # Page links are bound to this text, so it must be the same in every process: the order of a set is not.
        return f"Actor({self.kind}, {sorted(self.levels)}, {sorted(self.clearance)})"


def permits(policy: Policy, actor: Actor, key: VisibilityClass) -> bool:
    """Whether the actor may see resources (or parts of them) of this class.

    If :func:`own_conditions` returns parameters for the data class, the caller must add them as a condition.
    """
    if key.targets:
        element = key.element.partition("@")[0]
        if element and any(own_conditions(policy, actor, data) for data, _, _ in key.targets):
            return False  # no condition can be met by a contained resource or an index entry
        others = [VisibilityClass(data, key.labels, part) for data, part, _ in key.targets]
        return all(permits(policy, actor, part) for part in (*others, VisibilityClass(key.data, key.labels, element)))
    if actor.kind not in ACTORS or key.data not in policy.classes or not key.labels <= LABELS:
        return False
    if actor.kind == ActorKind.BACKEND:
        if "*" in actor.clearance:
            return True
        if not key.labels - _NO_CLEARANCE <= actor.clearance:
            return False
    return any(_permits_at_level(policy, actor.kind, level, key) for level in _levels(actor))


def own_conditions(policy: Policy, actor: Actor, data: str) -> tuple[str, ...] | None:
    """The search parameters of which one must name the actor in a resource of this data class; None without such a condition.

    The condition applies to every clause through which the actor sees the data class.
    """
    params = {param for level in _levels(actor) for rule in _rules(policy, actor.kind, level, data) for param in rule.by}
    return tuple(sorted(params)) or None


def own_parameters(policy: Policy, data: str) -> tuple[str, ...]:
    """The search parameters by which resources of this data class name the actor who may see them, for any actor."""
    return policy.own_parameters.get(data, ())


def redactable(policy: Policy, data: str) -> frozenset[str]:
    """The elements that the policy removes from this data class for some actor; each needs a visibility class of its own."""
    return policy.redactions.get(data, frozenset())


def released_only(actor: Actor) -> bool:
    """Whether the actor sees a resource only from its release date on."""
    return actor.kind not in _TREATING and not (actor.kind == ActorKind.BACKEND and actor.clearance & {"*", HELD})


def may_write(policy: Policy, actor: Actor, type: str, letter: str) -> bool:
    """Whether the actor may create ("c"), update ("u") or delete ("d") any resources of this type."""
    return any(True for _ in _write_rules(policy, actor, type, letter))


def may_ask(policy: Policy, actor: Actor, operation: str) -> bool:
    """Whether the actor may ask an operation (its name without ``$``) that the policy grants by name."""
    return any(operation in rule.operations for rule in _rules_of(policy, actor))


def writable_categories(policy: Policy, actor: Actor, type: str) -> frozenset[str] | None:
    """The codes of ``category`` that resources of this type may have which the actor creates or changes; None: any."""
    rules = [rule for letter in ("c", "u") for rule in _write_rules(policy, actor, type, letter)]
    if any(type not in rule.categories for rule in rules):
        return None
    return frozenset().union(*(rule.categories[type] for rule in rules))


def _write_rules(policy: Policy, actor: Actor, type: str, letter: str) -> Iterable[WriteRule]:
    return (rule for rule in _rules_of(policy, actor) if {type, "*"} & rule.types.get(letter, frozenset()))


def _rules_of(policy: Policy, actor: Actor) -> Iterable[WriteRule]:
    levels = _levels(actor)
    return (rule for rule in policy.writes if actor.kind in rule.actors and (not rule.levels or rule.levels & levels))


def _levels(actor: Actor) -> frozenset[str]:
    """The levels at which rules apply to the actor; none for an adult proxy with an unknown level or without one."""
    if actor.kind != ActorKind.ADULT_PROXY:
        return frozenset() if actor.levels else _NO_LEVEL
    return actor.levels if actor.levels <= LEVELS else frozenset()


def _rules(policy: Policy, kind: ActorKind, level: str, data: str) -> Iterable[Rule]:
    return (rule for rule in policy.by_actor.get((kind, data), ()) if not rule.levels or level in rule.levels)


def _permits_at_level(policy: Policy, kind: ActorKind, level: str, key: VisibilityClass) -> bool:
    permitted = False
    names = key.element.split("+")
    for rule in _rules(policy, kind, level, key.data):
        if rule.effect == "deny" and (not rule.labels or rule.labels & key.labels):
            return False
        if rule.effect == "redact" and not rule.elements.isdisjoint(names):
            return False
        permitted = permitted or rule.effect in ("permit", "own")
    return permitted
