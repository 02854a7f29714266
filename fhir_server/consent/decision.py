"""The decision: may this actor see data of this class?  Pure and total; whatever is unknown sees nothing.

Deny overrides, default deny.  Time is no argument: which actor somebody is *now* was settled before
(:mod:`fhir_server.consent.relationships`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fhir_server.consent.policy import ACTORS, LEVELS, Policy, Rule
from fhir_server.consent.visibility_classes import LABELS, VisibilityClass

# These treat the patient, so a result not yet released to the patient is theirs to see.
_TREATING: Final = frozenset({"CT", "BG"})


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, in the policy's terms: ``kind`` (AS, PT, CT ...), the ``level`` of an adult grant (several joined by ``+``),
    and for systems the labels they are cleared for (``*``: everything there is)."""

    kind: str
    level: str = ""
    clearance: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ExplainedDecision:
    """A decision with the rule that made it ("" where none did: default deny) and the rule's source."""

    decision: Literal["permit", "deny"]
    rule: str
    source: str


def permits(policy: Policy, actor: Actor, key: VisibilityClass) -> bool:
    """Whether rows (or parts) of this class are in the actor's view; subject to :func:`own_conditions`, which the caller adds."""
    return explain(policy, actor, key).decision == "permit"


def explain(policy: Policy, actor: Actor, key: VisibilityClass) -> ExplainedDecision:
    """The decision of :func:`permits` with its reason."""
    element, _, pointed = key.element.partition("@")
    if pointed:
        reached = explain(policy, actor, VisibilityClass(pointed, key.labels))
        return explain(policy, actor, VisibilityClass(key.data, key.labels, element)) if reached.decision == "permit" else reached
    if actor.kind not in ACTORS or key.data not in policy.classes or not key.labels <= LABELS:
        return ExplainedDecision("deny", "", "an unknown actor, data class or label")
    if actor.kind == "BE":
        if "*" in actor.clearance:
            return ExplainedDecision("permit", "", "cleared for everything")
        if not key.labels <= actor.clearance:
            return ExplainedDecision("deny", "", "labels outside the client's clearance")
    reasons = [_at_level(policy, actor.kind, level, key) for level in _levels(actor)]
    refused = reasons[0] if reasons else ExplainedDecision("deny", "", "no such level")
    return next((one for one in reasons if one.decision == "permit"), refused)


def own_conditions(policy: Policy, actor: Actor, data: str) -> tuple[str, ...] | None:
    """The search parameters of which one must name the actor in a row of this data class; None: no such condition.

    Where a row of the class needs to be the actor's own, every window the actor gets onto the class must carry it.
    """
    params = {param for level in _levels(actor) for rule in _applying(policy, actor.kind, level, data) for param in rule.by}
    return tuple(sorted(params)) or None


def redactable(policy: Policy, data: str) -> frozenset[str]:
    """Elements of this data class that some actor does not get, so that they need a class of their own."""
    return policy.redactions.get(data, frozenset())


def released_only(actor: Actor) -> bool:
    """Whether rows not yet released are out of this actor's view."""
    return actor.kind not in _TREATING and not (actor.kind == "BE" and actor.clearance & {"*", "HELD"})


def may_write(policy: Policy, actor: Actor, type: str, letter: str) -> bool:
    """Whether the actor may create ("c"), update ("u") or delete ("d") resources of this type at all."""
    levels = frozenset(_levels(actor))
    rules = (rule for rule in policy.writes if actor.kind in rule.actors and (not rule.levels or rule.levels & levels))
    return any({type, "*"} & rule.types.get(letter, frozenset()) for rule in rules)


def _levels(actor: Actor) -> tuple[str, ...]:
    """The levels to judge at; none for an adult grant without a level we know."""
    if actor.kind != "PA":
        return ("",) if not actor.level else ()
    levels = tuple(actor.level.split("+"))
    return levels if LEVELS.issuperset(levels) else ()


def _applying(policy: Policy, kind: str, level: str, data: str) -> Iterable[Rule]:
    return (rule for rule in policy.by_actor.get((kind, data), ()) if not rule.levels or level in rule.levels)


def _at_level(policy: Policy, kind: str, level: str, key: VisibilityClass) -> ExplainedDecision:
    opened: Rule | None = None
    for rule in _applying(policy, kind, level, key.data):
        if rule.effect == "deny" and (not rule.labels or rule.labels & key.labels):
            return ExplainedDecision("deny", rule.id, rule.source)
        if rule.effect == "redact" and key.element in rule.elements:
            return ExplainedDecision("deny", rule.id, rule.source)
        if rule.effect in ("permit", "own"):
            opened = rule
    return ExplainedDecision("permit", opened.id, opened.source) if opened else ExplainedDecision("deny", "", "no rule permits it")
