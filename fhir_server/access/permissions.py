"""A caller's permissions: everything one caller may see and do, in the condition language.

The scopes say which interactions the access token covers; the policy says which visibility classes the caller is admitted
to.  Both compile to one :class:`~fhir_server.search.visibility.Visibility` per resource type, which is the only form in
which a permission reaches a store.  What no scope and no class covers is not visible.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_server.access.app_state_owner import OWNER_PARAM, app_state_owner
from fhir_server.access.pending_labels import NOTHING_HIDDEN, HiddenRows, PendingRows
from fhir_server.consent import decision, labeling
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import Policy
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.errors import Problem
from fhir_server.resources import COMMON_DATA_CLASSES, catalog
from fhir_server.search import hidden_references, index, match, scope_conditions
from fhir_server.search.custom_parameters import NONE, CustomParameters
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, Has, IdIs, Not, RefersTo
from fhir_server.search.rows import SearchableRow
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.smart.core.scopes import INTERACTIONS, Scope, ScopeInteraction, covering_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import PermissionEpoch

INTERNAL = VisibilityClass("internal", frozenset())
"""Class of what the server adds and the record does not hold: security labels, tags, source."""
STORED = VisibilityClass("internal", frozenset(), "stored")
"""Class of the time at which a version was stored, which is the version's time for :attr:`Permissions.sees_everything` alone."""


@dataclass(frozen=True, slots=True)
class AdmittedClasses:
    """The ids of the visibility classes that an actor is admitted to, by data class.

    ``unconditional``: in any row.  ``if_named``: in rows that name the actor in one of these search parameters.
    ``if_referred``: in rows common to all patients, if a row that the caller sees refers to them.
    ``if_target_named``: in rows that depend on a row that names the actor in one of these.
    ``guarded``: of the classes of index entries of guarded parts, the types of the guarding rows.
    ``stored``: the class :data:`STORED`, if the actor is cleared for everything.
    """

    unconditional: Mapping[str, frozenset[int]]
    if_named: Mapping[str, tuple[frozenset[int], tuple[str, ...]]]
    if_referred: Mapping[str, frozenset[int]] = field(default_factory=dict)
    if_target_named: Mapping[str, tuple[tuple[frozenset[int], tuple[str, ...]], ...]] = field(default_factory=dict)
    guarded: Mapping[int, frozenset[str]] = field(default_factory=dict)
    stored: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Permissions:
    """Everything a caller may see and do until ``valid_until`` (microseconds), as long as ``epoch`` is the store's.

    ``patients``: whose rows are visible; None means any patient's (staff and systems).  ``names``: the references by
    which rows name the caller.  ``denied``: the ``Type/id`` of rows that a restriction withholds from the caller.
    ``base``: the FHIR base URL, needed to parse the search parameters inside scopes.  ``visible_targets``: the visible
    rows among those that conditions in scopes refer to.  ``pending``: all marks of rows that are still to be labeled again, and
    ``hidden`` those whose rows are hidden from the caller until then.  ``parameters``: the search parameters that the store adds to R4's.
    """

    principal: Principal
    actor: Actor | None
    patients: frozenset[str] | None
    classes: AdmittedClasses
    names: frozenset[str]
    denied: frozenset[str]
    valid_until: int
    epoch: PermissionEpoch
    base: str
    policy: Policy
    visible_targets: frozenset[str] = frozenset()
    pending: tuple[PendingRows, ...] = ()
    hidden: HiddenRows = NOTHING_HIDDEN
    parameters: CustomParameters = NONE

    def __post_init__(self) -> None:
        for cache in ("_clauses", "_admitted", "_conditions", "_scopes"):
            object.__setattr__(self, cache, {})

    @functools.cached_property
    def sees_everything(self) -> bool:
        """Whether nothing is hidden from this caller, so that stored versions are the caller's versions."""
        return self._is_institution_feed

    @functools.cached_property
    def may_write_labels(self) -> bool:
        """Whether the caller may choose ids, and send security labels, tags and source."""
        return self._is_institution_feed

    @property
    def _is_institution_feed(self) -> bool:
        # The one kind of client with either permission has both today; callers say which of the two they rely on.
        return self.principal.trusted_writer and self.actor is not None and "*" in self.actor.clearance

    @property
    def patient_context(self) -> str | None:
        """The patient on whose facts and grants these permissions depend, if it is one patient."""
        return patient_context(self.principal)

    @property
    def released_only(self) -> bool:
        """Whether rows are hidden from this caller until their release."""
        return self.actor is None or decision.released_only(self.actor)

    def scopes(self, type: str, interaction: ScopeInteraction) -> tuple[Scope, ...]:
        """The scopes that let this caller do ``interaction`` (c, r, u, d, s) to resources of ``type``."""
        cache: dict[tuple[str, str], tuple[Scope, ...]] = self._scopes  # type: ignore[attr-defined]
        found = cache.get((type, interaction))
        if found is None:
            covering = covering_scopes(self.principal.scopes, None, type, interaction)
            found = tuple(scope for scope in covering if self._visible_condition(type, scope) is not None)
            # The type may be any text of a request: it is cached only if it is R4's, so that the cache is bounded.
            if type in catalog():
                cache[type, interaction] = found
        return found

    def covers_resource(self, interaction: ScopeInteraction, type: str, resource: Mapping[str, Any]) -> bool:
        """Whether a scope for ``interaction`` covers a resource of ``type`` as received: its patients and the scope's condition."""
        scopes = self.scopes(type, interaction)
        if any(not scope.query and self._patients_at_level(scope.level) is None for scope in scopes):
            return True
        patients = labeling.patient_ids(type, resource)
        id = str(resource.get("id", "")) if interaction == "u" else ""  # the server chooses the id of a created resource
        row = SearchableRow(type, id, patients, 0, 0, index.entries_with_words(type, resource, self.base))
        return any(self._covers_patients(scope.level, patients) and self._meets_condition(type, scope, row) for scope in scopes)

    def _covers_patients(self, level: str, patients: tuple[str, ...]) -> bool:
        record = self._patients_at_level(level)
        return record is None or (bool(patients) and record.issuperset(patients))

    def _meets_condition(self, type: str, scope: Scope, row: SearchableRow) -> bool:
        where = self._visible_condition(type, scope)
        return where is not None and match.matches(where, row, frozenset({0}))

    def with_visible_targets(self, targets: frozenset[str]) -> Permissions:
        """These permissions with the visible targets of references in scopes; for one request only, as any write may change them."""
        return replace(self, visible_targets=targets, valid_until=0)

    def scope_reference_targets(self) -> frozenset[str]:
        """The ``Type/id`` of rows that conditions in scopes refer to and that may be hidden from the caller."""
        if self.sees_everything:
            return frozenset()
        narrowed = [scope for scope in self.principal.scopes if scope.query]
        typed = ((type, scope) for scope in narrowed for type in (catalog() if scope.type == "*" else (scope.type,)))
        conditions = (self._scope_condition(type, scope) for type, scope in typed if type in catalog())
        targets = {target for where in conditions if where is not None for target in hidden_references.targets(where)}
        return frozenset(targets) - self._patient_references()

    def _scope_condition(self, type: str, scope: Scope) -> Filter | None:
        condition = scope_conditions.condition if self.sees_everything else scope_conditions.answerable_condition
        return condition(type, scope.query, self.base)

    def _visible_condition(self, type: str, scope: Scope) -> Filter | None:
        """The scope's condition on rows of ``type``; references in it match visible rows only.  None if ``type`` cannot have it."""
        if not scope.query:
            return EVERYTHING
        cache: dict[tuple[str, Scope], Filter | None] = self._conditions  # type: ignore[attr-defined]
        if (type, scope) not in cache:
            where = self._scope_condition(type, scope)
            if where is not None and not self.sees_everything:
                where = hidden_references.limit_to_visible(where, self.visible_targets | self._patient_references())
            cache[type, scope] = where
        return cache[type, scope]

    def _patient_references(self) -> frozenset[str]:
        return frozenset(f"Patient/{patient}" for patient in self.patients or ())

    def may_write(self, type: str, interaction: ScopeInteraction) -> bool:
        """Whether the policy lets this actor create ("c") or update ("u") resources of ``type``."""
        return self.actor is not None and decision.may_write(self.policy, self.actor, type, interaction)

    def may_ask(self, operation: str) -> bool:
        """Whether the policy lets this actor ask an operation (its name without ``$``) that it grants by name."""
        return self.actor is not None and decision.may_ask(self.policy, self.actor, operation)

    def reportable_categories(self, type: str) -> frozenset[str] | None:
        """The codes of ``category`` that this actor's resources of ``type`` may have; None: any."""
        return decision.writable_categories(self.policy, self.actor, type) if self.actor is not None else frozenset()

    def require(self, type: str, interaction: ScopeInteraction) -> None:
        """Raises Problem ``forbidden`` if no scope covers the interaction; consults no stored data."""
        if not self.scopes(type, interaction):
            raise Problem("forbidden", f"The scopes of this access token do not cover this interaction on {type}.")

    def visibility(self, type: str, now: int, interactions: str = "rs", referred: frozenset[str] = frozenset()) -> Visibility:
        """The rows and elements of ``type`` that the caller sees at ``now`` under a scope for any of ``interactions``.

        ``referred``: the ids of rows of a :meth:`seen_through` type to which rows that the caller sees refer.
        """
        cache: dict[tuple[str, str], tuple[VisibilityClause, ...]] = self._clauses  # type: ignore[attr-defined]
        clauses = cache.get((type, interactions))
        if clauses is None:
            clauses = cache[type, interactions] = self._compile(type, interactions)
        if referred:
            clauses += self._compile_referred(type, interactions, referred)
        return Visibility(clauses, now)

    def audit_visibility(self, interactions: str, now: int) -> Visibility:
        """The AuditEvents of the audit log that scopes for any of ``interactions`` cover, by patient and by the scopes' conditions.

        Its only class is 0: what the caller sees of a line is decided before (:mod:`~fhir_server.access.audit_projection`).
        """
        scopes = [scope for interaction in INTERACTIONS if interaction in interactions for scope in self.scopes("AuditEvent", interaction)]
        levels = {level: [scope for scope in scopes if scope.level == level] for level in sorted({scope.level for scope in scopes})}
        return Visibility(
            tuple(
                VisibilityClause(self._patients_at_level(level), frozenset({0}), False, self._any_scope_condition("AuditEvent", covering))
                for level, covering in levels.items()
            ),
            now,
        )

    def scope_condition(self, type: str, interactions: str) -> Filter:
        """What scopes for any of ``interactions`` ask of a resource of ``type``; a condition that nothing meets without such a scope."""
        covering = [scope for interaction in INTERACTIONS if interaction in interactions for scope in self.scopes(type, interaction)]
        return self._any_scope_condition(type, covering)

    def seen_through(self, type: str) -> tuple[tuple[str, str], ...]:
        """The (type, search parameter) of the references by which the caller sees further rows of ``type``."""
        return catalog()[type].seen_through if type in types_seen_through() and self._referred_classes(type) else ()

    def _referred_classes(self, type: str) -> frozenset[int]:
        return frozenset[int]().union(*[self.classes.if_referred.get(data, frozenset()) for data in data_classes(type)])

    def _compile_referred(self, type: str, interactions: str, referred: frozenset[str]) -> tuple[VisibilityClause, ...]:
        covering = [scope for interaction in INTERACTIONS if interaction in interactions for scope in self.scopes(type, interaction)]
        narrowed = AllOf((IdIs(referred), self._without_denied(type, self._any_scope_condition(type, covering))))
        classes = self._referred_classes(type).union(*self._unconditional_classes(type).values())
        return (VisibilityClause(None, classes, self.released_only, narrowed),) if covering else ()

    def admitted_classes(self, type: str) -> frozenset[int]:
        """The ids of all classes of rows and elements of ``type`` that the caller may see."""
        cache: dict[str, frozenset[int]] = self._admitted  # type: ignore[attr-defined]
        if type not in cache:
            compiled = self._compile(type, "cruds")
            referred = self._referred_classes(type) if compiled else frozenset()
            cache[type] = referred.union(*(clause.classes for clause in compiled))
        return cache[type]

    def _compile(self, type: str, interactions: str) -> tuple[VisibilityClause, ...]:
        scopes = [scope for interaction in INTERACTIONS if interaction in interactions for scope in self.scopes(type, interaction)]
        if self.actor is None or type not in catalog():
            return ()
        clauses: dict[VisibilityClause, None] = {}
        for level in sorted({scope.level for scope in scopes}):
            narrowed = self._any_scope_condition(type, [scope for scope in scopes if scope.level == level])
            clauses.update(dict.fromkeys(self._clauses_at_level(type, self._patients_at_level(level), narrowed)))
        internal = self.classes.unconditional.get("internal", frozenset())
        if self.sees_everything:
            internal |= self.classes.stored
        return tuple(replace(clause, classes=clause.classes | internal) for clause in clauses if clause.classes)

    def owners(self, type: str) -> frozenset[str] | None:
        """The patients whose rows of ``type`` the caller sees; None: any patient's, as also of a type with rows common to all."""
        if self.patients is None and not self.principal.patient:
            return None
        if not COMMON_DATA_CLASSES.isdisjoint(data_classes(type)):
            return None
        levels = {scope.level for interaction in INTERACTIONS for scope in self.scopes(type, interaction)}
        found = [self._patients_at_level(level) for level in levels]
        return None if None in found else frozenset[str]().union(*[patients for patients in found if patients is not None])

    def _patients_at_level(self, level: str) -> frozenset[str] | None:
        """The patients whose rows a scope of this level covers: ``patient/`` means the patient in context, for every caller."""
        if level == "patient" and self.principal.patient:
            context = frozenset({self.principal.patient})
            return context if self.patients is None else context & self.patients
        return self.patients

    def _clauses_at_level(self, type: str, patients: frozenset[str] | None, narrowed: Filter) -> Iterable[VisibilityClause]:
        narrowed = self._without_denied(type, narrowed)
        classes = self._unconditional_classes(type)
        common = frozenset().union(*(classes[data] for data in classes if data in COMMON_DATA_CLASSES))
        of_patients = frozenset().union(*(classes[data] for data in classes if data not in COMMON_DATA_CLASSES))
        if patients is None:
            yield VisibilityClause(None, of_patients | common, self.released_only, narrowed)
        else:
            yield VisibilityClause(patients, of_patients, self.released_only, narrowed)
            yield VisibilityClause(None, common, self.released_only, narrowed)
        yield from self._clauses_if_named(type, patients, narrowed)
        yield from self._clauses_if_target_named(type, patients, narrowed)

    def _without_denied(self, type: str, narrowed: Filter) -> Filter:
        """The condition without the single rows that a restriction withholds from this caller, or that wait for their labels."""
        narrowed = self.hidden.without(type, data_classes(type), narrowed)
        if not self.denied:
            return narrowed
        ids = frozenset(name.partition("/")[2] for name in self.denied if name.startswith(type + "/"))
        # Rows that mean nothing without a restricted one are withheld with it.
        return AllOf((narrowed, Not(Has("_depends", RefersTo(self.denied))), *((Not(IdIs(ids)),) if ids else ())))

    def _unconditional_classes(self, type: str) -> dict[str, frozenset[int]]:
        found = {data: self.classes.unconditional[data] for data in data_classes(type) if data in self.classes.unconditional}
        unsearchable = self._unsearchable()
        return {data: classes - unsearchable for data, classes in found.items()} if unsearchable else found

    def _unsearchable(self) -> frozenset[int]:
        """The classes of index entries of guarded parts that this caller may not search by.

        Whether a restriction or a scope hides the guarding row is no part of a class; where one might, the caller does without them.
        """
        cache: dict[str, frozenset[int]] = self._admitted  # type: ignore[attr-defined]
        if "*" not in cache:
            guarded = self.classes.guarded.items()
            cache["*"] = frozenset(id for id, types in guarded if self.denied or not all(map(self._reads_all_of, types)))
        return cache["*"]

    def _reads_all_of(self, type: str) -> bool:
        return any(not scope.query for scope in (*self.scopes(type, "r"), *self.scopes(type, "s")))

    def _clauses_if_named(self, type: str, patients: frozenset[str] | None, narrowed: Filter) -> Iterable[VisibilityClause]:
        for data in data_classes(type):
            classes, params = self.classes.if_named.get(data, (frozenset(), ()))
            conditions = tuple(where for param in params if (where := self._names_actor(type, param)))
            classes -= self._unsearchable()
            if classes and conditions:
                yield VisibilityClause(patients, classes, self.released_only, AllOf((AnyOf(conditions), narrowed)))

    def _clauses_if_target_named(self, type: str, patients: frozenset[str] | None, narrowed: Filter) -> Iterable[VisibilityClause]:
        for data in data_classes(type):
            named, params = self.classes.if_named.get(data, (frozenset[int](), ()))
            parts = self.classes.unconditional.get(data, named) - self._unsearchable()
            own = AnyOf(tuple(where for param in params if (where := self._names_actor(type, param)))) if params else EVERYTHING
            for classes, target_params in self.classes.if_target_named.get(data, ()):
                # The entries hold the whole reference, also where the policy's parameter is the id.
                names_actor = AnyOf(tuple(Has(f"_depends.{param}", RefersTo(self.names)) for param in target_params if self.names))
                yield VisibilityClause(patients, classes | parts, self.released_only, AllOf((own, names_actor, narrowed)))

    def _names_actor(self, type: str, param: str) -> Filter | None:
        if param == "_id":
            ids = frozenset(name.partition("/")[2] for name in self.names if name.startswith(type + "/"))
            return IdIs(ids) if ids else None
        if param == OWNER_PARAM:
            owner = app_state_owner(self.principal)
            return Has(param, RefersTo(frozenset({owner}))) if owner else None
        return Has(param, RefersTo(self.names)) if self.names else None

    def _any_scope_condition(self, type: str, scopes: Iterable[Scope]) -> Filter:
        parts = [where for scope in scopes if (where := self._visible_condition(type, scope)) is not None]
        return EVERYTHING if EVERYTHING in parts else AnyOf(tuple(parts))


@functools.cache
def types_seen_through() -> frozenset[str]:
    """The types common to all patients of which callers see further rows by references."""
    return frozenset(name for name, declared in catalog().items() if declared.seen_through)


@functools.cache
def data_classes(type: str) -> frozenset[str]:
    """The data classes that rows of ``type`` may have; a Binary may have that of whatever row of a patient is its context."""
    if type == "Binary":
        of_patients = [_own_data_classes(name) for name, declared in catalog().items() if declared.subjects]
        return frozenset[str]().union(*of_patients) - COMMON_DATA_CLASSES - {"internal"}
    return _own_data_classes(type)


def _own_data_classes(type: str) -> frozenset[str]:
    declared = catalog()[type]
    found = {declared.data_class, *declared.by_category.values(), *declared.by_status.values(), *declared.by_source.values()}
    return frozenset(found | {labeling.IF_PSYNOTE[data] for data in found & labeling.IF_PSYNOTE.keys()})


def patient_context(principal: Principal) -> str | None:
    """The id of the patient in context: the token's, otherwise the person's own record."""
    return principal.patient or (principal.person.patient if principal.person else None)
