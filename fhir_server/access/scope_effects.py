"""What is left of requested scopes for a person in a record: the types and letters that have an effect under the policy.

The consent page offers nothing else, and a token is granted nothing else.  What the policy permits later, such as from a
birthday on, is not promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fhir_server.access.permissions import data_classes
from fhir_server.access.resolver import PermissionResolver
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import decision
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import Policy
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.resources import basic, catalog
from fhir_server.smart.core.persons import Person
from fhir_server.smart.core.scopes import MAX_SCOPES, Scope, ScopeInteraction, resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Store

_READ: Final = "rs"
_SUBSCRIPTION: Final = "Subscription"


class ScopeEffects:
    """The ``effective_scopes`` callable of :class:`~fhir_server.smart.core.context.SmartContext`."""

    def __init__(self, store: Store, resolver: PermissionResolver, policy: Policy) -> None:
        self._store = store
        self._resolver = resolver
        self._policy = policy

    async def __call__(self, person: Person, patient: str | None, scope: str, now: int) -> Mapping[str, tuple[str, ...]]:
        """By requested resource scope: the scopes to grant for it, () if it has no effect.

        ``patient`` is the id of the record, or None for staff without one; ``now`` is in microseconds since 1970 UTC.
        """
        principal = Principal("", "app", frozenset(), False, None, person, patient, None, (), None, "", MAX_INSTANT)
        async with self._store.snapshot() as snapshot:
            actor = (await self._resolver.resolve(snapshot, principal, now)).actor
        requested = resource_scopes(scope)
        effects = {each.text: effective_scopes(self._policy, actor, each) for each in requested}
        if sum(map(len, effects.values())) > MAX_SCOPES:  # as many as a token may have; so the wildcards lose their writes
            effects = {text: granted[:1] for text, granted in effects.items()}
        return effects


def effective_scopes(policy: Policy, actor: Actor | None, scope: Scope) -> tuple[str, ...]:
    """The scopes that say what ``scope`` lets this actor do: one that reads, and for ``*`` one more for each type that it writes."""
    if actor is None:
        return ()
    if scope.type != "*":
        return _texts(scope, scope.type, _letters(policy, actor, scope, scope.type))
    by_type = {type: _letters(policy, actor, scope, type) for type in catalog()}
    read = "".join(letter for letter in _READ if any(letter in letters for letters in by_type.values()))
    texts = list(_texts(scope, "*", read))
    for type, letters in by_type.items():
        texts += _texts(scope, type, "".join(letter for letter in letters if letter not in _READ))
    return tuple(texts)


def _letters(policy: Policy, actor: Actor, scope: Scope, type: str) -> str:
    return "".join(letter for letter in scope.interactions if type in catalog() and _has_effect(policy, actor, scope, type, letter))


def _has_effect(policy: Policy, actor: Actor, scope: Scope, type: str, letter: ScopeInteraction | str) -> bool:
    if type == _SUBSCRIPTION:
        # Whoever sees anything may subscribe to it.  It sends data to where the app says, so a scope for all types does not include it.
        return letter in _READ or scope.type == type
    if letter in _READ:
        return any(decision.permits(policy, actor, VisibilityClass(data)) for data in data_classes(type))
    if letter == "d" and type != basic.TYPE.name:  # apps delete nothing but their own state
        return False
    return decision.may_write(policy, actor, type, letter) and _may_have_category(policy, actor, scope, type)


def _may_have_category(policy: Policy, actor: Actor, scope: Scope, type: str) -> bool:
    """Whether a resource that the actor writes can have one of the categories to which the scope is limited."""
    allowed = decision.writable_categories(policy, actor, type)
    limits = [value.split(",") for name, value in scope.query if name == "category"]
    return allowed is None or all(any(code.rpartition("|")[2] in allowed for code in codes) for codes in limits)


def _texts(scope: Scope, type: str, letters: str) -> tuple[str, ...]:
    """The scope with this type and these letters, in the syntax of the request; none without letters."""
    if not letters:
        return ()
    if type == scope.type and letters == scope.interactions:
        return (scope.text,)
    access, _, condition = scope.text.rpartition("/")[2].partition(".")[2].partition("?")
    is_v1 = access in ("read", "*")
    text = f"{scope.level}/{type}." + ("read" if is_v1 and letters == _READ else letters)
    return (f"{text}?{condition}" if condition else text,)
