"""Who asks, and what the policy lets them see: principal + policy + now -> plan.

``smart`` says who asks and ``consent`` what may be seen; they meet only here.  A :class:`Permissions` is the whole
permission of one caller, in the condition language.  It is built from the Patient, RelatedPerson and Consent
resources themselves, in the caller's own snapshot, and is good until ``until`` or until the store's stamp
moves, whichever comes first.  What is not planned is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fhir_server import jsontext
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import decision, labeling, relationships
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import Policy
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.errors import Problem
from fhir_server.resources import COMMON_DATA_CLASSES, catalog
from fhir_server.search import hidden_references, index, match, scope_conditions
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, Has, IdIs, Not, OfPatient, RefersTo
from fhir_server.search.visibility import SearchableRow, Visibility, VisibilityClause
from fhir_server.smart.core.persons import Person
from fhir_server.smart.core.scopes import INTERACTIONS, Scope, ScopeInteraction, covering_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import PermissionEpoch, Snapshot

INTERNAL = VisibilityClass("internal", frozenset())
"""Class of what is ours and not the record's: security labels, tags, source."""

_ROLE_ACTORS = {"clinician": "CT", "billing": "BO", "privacy": "AU"}
# Where a practitioner must be named for a patient to be under his or her care.
_TREATING = (("CareTeam", "participant"), ("Encounter", "participant"), ("Patient", "general-practitioner"), ("Appointment", "actor"))


@dataclass(frozen=True, slots=True)
class AdmittedClasses:
    """The visibility classes an actor is admitted to, by data class: outright, and for rows that name the actor."""

    unconditional: Mapping[str, frozenset[int]]
    if_named: Mapping[str, tuple[frozenset[int], tuple[str, ...]]]


@dataclass(frozen=True)
class Permissions:
    """Everything a caller may do, for as long as it holds.

    ``patients`` None means any patient's rows (staff and systems); ``names`` are the references by which rows name
    the caller, ``denied`` the ``Type/id`` of rows that a restriction keeps from this caller; ``epoch`` is what the
    store had counted of what the plan rests on; ``base`` is needed to read search parameters inside scopes, and ``shown``
    are the rows in view that those refer to.
    """

    principal: Principal
    actor: Actor | None
    patients: frozenset[str] | None
    classes: AdmittedClasses
    names: frozenset[str]
    denied: frozenset[str]
    until: int
    epoch: PermissionEpoch
    base: str
    policy: Policy
    visible_targets: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for cache in ("_clauses", "_admitted", "_conditions"):
            object.__setattr__(self, cache, {})

    @cached_property
    def everything(self) -> bool:
        """Whether nothing at all is withheld from this caller (so stored versions are the caller's versions)."""
        return self.trusted

    @property
    def trusted(self) -> bool:
        """Whether the caller may choose ids, send security labels and see them."""
        return self.principal.trusted_writer and self.actor is not None and "*" in self.actor.clearance

    @property
    def patient_context(self) -> str | None:
        """The patient on whose facts and grants this plan rests, if it is one."""
        return _patient_context(self.principal)

    @property
    def released_only(self) -> bool:
        return self.actor is None or decision.released_only(self.actor)

    def scopes(self, type: str, interaction: ScopeInteraction) -> tuple[Scope, ...]:
        """The scopes that let this caller do ``interaction`` to resources of ``type``."""
        return tuple(
            scope
            for scope in covering_scopes(self.principal.scopes, None, type, interaction)
            if self._visible_condition(type, scope) is not None
        )

    def covers_resource(self, interaction: ScopeInteraction, type: str, resource: Mapping[str, Any]) -> bool:
        """Whether a scope for ``interaction`` covers a resource as sent: its patients, and what the scope asks of it."""
        scopes = self.scopes(type, interaction)
        if any(not scope.query and self._patients_at_level(scope.level) is None for scope in scopes):
            return True
        patients = labeling.patient_ids(type, resource)
        id = str(resource.get("id", "")) if interaction == "u" else ""  # of what is created, the server chooses it
        row = SearchableRow(type, id, patients, 0, 0, index.entries(type, resource, self.base))
        return any(self._covers_patients(scope.level, patients) and self._meets_condition(type, scope, row) for scope in scopes)

    def _covers_patients(self, level: str, patients: tuple[str, ...]) -> bool:
        record = self._patients_at_level(level)
        return record is None or (bool(patients) and record.issuperset(patients))

    def _meets_condition(self, type: str, scope: Scope, row: SearchableRow) -> bool:
        where = self._visible_condition(type, scope)
        return where is not None and match.matches(where, row, frozenset({0}))

    def with_visible_targets(self, shown: frozenset[str]) -> Permissions:
        """This plan, with the references in its scopes leading to these rows.  Any write may change which; so it holds for one request."""
        return replace(self, visible_targets=shown, until=0)

    def scope_reference_targets(self) -> frozenset[str]:
        """The rows that conditions in scopes ask references to, and that could be out of view."""
        if self.everything:
            return frozenset()
        narrowed = [scope for scope in self.principal.scopes if scope.query]
        found = ((type, scope) for scope in narrowed for type in (catalog() if scope.type == "*" else (scope.type,)))
        wheres = (self._scope_condition(type, scope) for type, scope in found if type in catalog())
        return (
            frozenset(target for where in wheres if where is not None for target in hidden_references.targets(where))
            - self._patient_references()
        )

    def _scope_condition(self, type: str, scope: Scope) -> Filter | None:
        return scope_conditions.condition(type, scope.query, self.base, everything=self.everything)

    def _visible_condition(self, type: str, scope: Scope) -> Filter | None:
        """What a scope asks of rows of ``type``, where references lead only to rows in view; None for what cannot be asked of them."""
        if not scope.query:
            return EVERYTHING
        cache: dict[tuple[str, Scope], Filter | None] = self._conditions  # type: ignore[attr-defined]
        if (type, scope) not in cache:
            where = self._scope_condition(type, scope)
            cache[type, scope] = (
                where
                if where is None or self.everything
                else hidden_references.limit_to_visible(where, self.visible_targets | self._patient_references())
            )
        return cache[type, scope]

    def _patient_references(self) -> frozenset[str]:
        return frozenset(f"Patient/{patient}" for patient in self.patients or ())

    def may_write(self, type: str, interaction: ScopeInteraction) -> bool:
        """Whether the policy lets this actor create ("c") or update ("u") resources of ``type``."""
        return self.actor is not None and decision.may_write(self.policy, self.actor, type, interaction)

    def require(self, type: str, interaction: ScopeInteraction) -> None:
        """Refuse an interaction no scope covers.  Raises Problem ``forbidden``; consults no stored data."""
        if not self.scopes(type, interaction):
            raise Problem("forbidden", f"The scopes of this access token do not cover this interaction on {type}.")

    def visibility(self, type: str, now: int, interactions: str = "rs") -> Visibility:
        """What of ``type`` this caller sees at ``now`` under a scope for any of ``interactions``."""
        cache: dict[tuple[str, str], tuple[VisibilityClause, ...]] = self._clauses  # type: ignore[attr-defined]
        clauses = cache.get((type, interactions))
        if clauses is None:
            clauses = cache[type, interactions] = self._compile(type, interactions)
        return Visibility(clauses, now)

    def admitted_classes(self, type: str) -> frozenset[int]:
        """All classes through which some row or part of ``type`` may be seen."""
        cache: dict[str, frozenset[int]] = self._admitted  # type: ignore[attr-defined]
        if type not in cache:
            cache[type] = frozenset[int]().union(*(clause.classes for clause in self._compile(type, "cruds")))
        return cache[type]

    def _compile(self, type: str, interactions: str) -> tuple[VisibilityClause, ...]:
        scopes = [scope for each in INTERACTIONS if each in interactions for scope in self.scopes(type, each)]
        if self.actor is None or type not in catalog():
            return ()
        clauses: dict[VisibilityClause, None] = {}
        for level in sorted({scope.level for scope in scopes}):
            narrowed = self._any_scope_condition(type, [scope for scope in scopes if scope.level == level])
            clauses.update(dict.fromkeys(self._clauses_at_level(type, self._patients_at_level(level), narrowed)))
        internal = self.classes.unconditional.get("internal", frozenset())
        return tuple(replace(clause, classes=clause.classes | internal) for clause in clauses if clause.classes)

    def _patients_at_level(self, level: str) -> frozenset[str] | None:
        """Whose rows a scope of this level opens: ``patient/`` is about the patient in context, whoever asks."""
        if level == "patient" and self.principal.patient:
            context = frozenset({self.principal.patient})
            return context if self.patients is None else context & self.patients
        return self.patients

    def _clauses_at_level(self, type: str, patients: frozenset[str] | None, narrowed: Filter) -> Iterable[VisibilityClause]:
        narrowed = self._without_denied(type, narrowed)
        plain = self._unconditional_classes(type)
        common = frozenset().union(*(plain[data] for data in plain if data in COMMON_DATA_CLASSES))
        ours = frozenset().union(*(plain[data] for data in plain if data not in COMMON_DATA_CLASSES))
        if patients is None:
            yield VisibilityClause(None, ours | common, self.released_only, narrowed)
        else:
            yield VisibilityClause(patients, ours, self.released_only, narrowed)
            yield VisibilityClause(None, common, self.released_only, narrowed)
        yield from self._clauses_if_named(type, patients, narrowed)

    def _without_denied(self, type: str, narrowed: Filter) -> Filter:
        """Less the single rows that a restriction keeps from this caller."""
        ids = frozenset(name.partition("/")[2] for name in self.denied if name.startswith(type + "/"))
        return AllOf((narrowed, Not(IdIs(ids)))) if ids else narrowed

    def _unconditional_classes(self, type: str) -> dict[str, frozenset[int]]:
        return {data: self.classes.unconditional[data] for data in data_classes(type) if data in self.classes.unconditional}

    def _clauses_if_named(self, type: str, patients: frozenset[str] | None, narrowed: Filter) -> Iterable[VisibilityClause]:
        for data in data_classes(type):
            classes, params = self.classes.if_named.get(data, (frozenset(), ()))
            conditions = tuple(part for param in params if (part := self._names_actor(type, param)))
            if classes and conditions:
                yield VisibilityClause(patients, classes, self.released_only, AllOf((AnyOf(conditions), narrowed)))

    def _names_actor(self, type: str, param: str) -> Filter | None:
        if param == "_id":
            ids = frozenset(name.partition("/")[2] for name in self.names if name.startswith(type + "/"))
            return IdIs(ids) if ids else None
        return Has(param, RefersTo(self.names)) if self.names else None

    def _any_scope_condition(self, type: str, scopes: Iterable[Scope]) -> Filter:
        parts = [where for scope in scopes if (where := self._visible_condition(type, scope)) is not None]
        return EVERYTHING if EVERYTHING in parts else AnyOf(tuple(parts))


def data_classes(type: str) -> frozenset[str]:
    """The data classes that rows of a type may be of."""
    declared = catalog()[type]
    return frozenset({declared.data_class, *declared.by_category.values(), *declared.by_status.values()})


@dataclass(frozen=True, slots=True)
class ResolvedCaller:
    """A principal in the policy's terms; the fields are a Plan's."""

    actor: Actor | None = None
    patients: frozenset[str] | None = frozenset()
    names: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    valid_until: int = MAX_INSTANT


@dataclass(frozen=True, slots=True)
class AccessibleRecord:
    """A record that a person may open: the Patient, what the person is to it, and the row that is the person there."""

    patient: str
    resource: dict[str, Any]
    actor: Actor
    name: str


class PermissionResolver:
    """Makes plans.  One per server; remembers, per actor, which classes the policy admits."""

    def __init__(self, policy: Policy, base: str) -> None:
        self._policy = policy
        self._base = base
        self.timezone = policy.timezone
        self._memo: dict[tuple[Actor, frozenset[str]], tuple[tuple[str, ...], AdmittedClasses]] = {}

    async def resolve(self, snapshot: Snapshot, principal: Principal, now: int) -> Permissions:
        """The plan of this principal at ``now``.  Without an actor the plan sees nothing."""
        epoch = await snapshot.permission_epoch(_patient_context(principal))
        keys = await snapshot.classes()
        who = await self._resolve_caller(snapshot, principal, _facts(keys, now), now)
        classes = self._cached_admitted_classes(who.actor, keys, principal.withheld_labels) if who.actor else AdmittedClasses({}, {})
        until = min(who.valid_until, principal.expires)
        permissions = Permissions(
            principal, who.actor, who.patients, classes, who.names, who.denied, until, epoch, self._base, self._policy
        )
        asked = permissions.scope_reference_targets()
        return (
            permissions.with_visible_targets(await snapshot.visible(asked, lambda type: permissions.visibility(type, now)))
            if asked
            else permissions
        )

    async def _resolve_caller(self, snapshot: Snapshot, principal: Principal, facts: Visibility, now: int) -> ResolvedCaller:
        person = principal.person
        if principal.client_kind == "backend":
            return ResolvedCaller(Actor("BE", clearance=principal.client_clearance), None)
        if person is None:
            return ResolvedCaller()
        if person.role in _ROLE_ACTORS:
            names = frozenset({f"Practitioner/{person.practitioner}"} if person.practitioner else ())
            if person.role != "clinician":
                return ResolvedCaller(Actor(_ROLE_ACTORS[person.role]), None, names)
            # Who is under whose care is data like any other, so this plan holds for this request only.
            return ResolvedCaller(Actor("CT"), await _patients_under_care(snapshot, names, facts), names, valid_until=now)
        patient = _patient_context(principal)
        if patient is None:
            return ResolvedCaller()
        judged, _, names = await self._relationship(snapshot, person, patient, facts, now)
        return ResolvedCaller(judged.actor, frozenset({patient}), names, judged.denied, judged.valid_until)

    async def accessible_records(self, snapshot: Snapshot, person: Person, now: int) -> list[AccessibleRecord]:
        """The records this person may open at ``now``, the person's own first."""
        keys = await snapshot.classes()
        facts = _facts(keys, now)
        if person.role == "clinician":
            patients = sorted(await _patients_under_care(snapshot, frozenset({f"Practitioner/{person.practitioner}"}), facts))
        else:
            related = await _read_all(snapshot, "RelatedPerson", IdIs(person.related_persons), facts)
            others = {_related_patient_id(one) for one in related} - {person.patient, ""}
            patients = [person.patient, *sorted(others)] if person.patient else sorted(others)
        found = []
        for patient in patients:
            judged, resource, names = await self._relationship(snapshot, person, patient, facts, now)
            if judged.actor is not None and resource is not None and self._cached_admitted_classes(judged.actor, keys).unconditional:
                found.append(AccessibleRecord(patient, resource, judged.actor, min(names, default="")))
        return found

    async def _relationship(
        self, snapshot: Snapshot, person: Person, patient: str, facts: Visibility, now: int
    ) -> tuple[relationships.Relationship, dict[str, Any] | None, frozenset[str]]:
        """What this person is to this patient, the Patient itself, and the references by which rows name the person."""
        row = await snapshot.read("Patient", patient, facts)
        resource = jsontext.parse(row.body) if row else None
        if person.role == "clinician":
            return relationships.Relationship(Actor("CT"), now), resource, frozenset({f"Practitioner/{person.practitioner}"})
        related = await _read_all(snapshot, "RelatedPerson", IdIs(person.related_persons), facts)
        related = [one for one in related if _related_patient_id(one) == patient]
        consents = await _read_all(snapshot, "Consent", OfPatient(frozenset({patient})), facts)
        asker = relationships.Requester(person.role, person.patient, person.practitioner, person.related_persons)
        linked = await _read_all(snapshot, "Patient", IdIs(_linked_patient_ids(resource)), facts)
        judged = relationships.resolve_relationship(
            self._policy, now, patient=resource, person=asker, related=related, consents=consents, linked=linked
        )
        if linked:
            # The other record's birth date decides too, and the stamp counts only this patient's changes: judge each time anew.
            judged = replace(judged, valid_until=now)
        own = person.patient == patient
        names = {f"Patient/{patient}"} if own else {f"RelatedPerson/{one['id']}" for one in related}
        return judged, resource, frozenset(names)

    def _cached_admitted_classes(self, actor: Actor, keys: tuple[str, ...], withheld: frozenset[str] = frozenset()) -> AdmittedClasses:
        known = self._memo.get((actor, withheld))
        # The keys, not their number: what a failed transaction numbered is numbered anew by another.
        if known is None or known[0] != keys:
            known = self._memo[actor, withheld] = (keys, self._admitted_classes(actor, keys, withheld))
        return known[1]

    def _admitted_classes(self, actor: Actor, keys: tuple[str, ...], withheld: frozenset[str]) -> AdmittedClasses:
        """``withheld``: labels that the person keeps from the client who asks for her."""
        plain: dict[str, set[int]] = {}
        own: dict[str, set[int]] = {}
        params: dict[str, tuple[str, ...]] = {}
        for number, text in enumerate(keys):
            key = VisibilityClass.parse(text)
            if key.labels & withheld:
                continue
            if "*" in actor.clearance:
                # A feed that is cleared for everything must find again whatever it wrote.
                plain.setdefault(key.data, set()).add(number)
            elif decision.permits(self._policy, actor, key):
                condition = decision.own_conditions(self._policy, actor, key.data)
                (plain if condition is None else own).setdefault(key.data, set()).add(number)
                params[key.data] = condition or ()
        return AdmittedClasses(
            {data: frozenset(numbers) for data, numbers in plain.items()},
            {data: (frozenset(numbers), params[data]) for data, numbers in own.items()},
        )


def _facts(keys: tuple[str, ...], now: int) -> Visibility:
    """The sight by which the server itself reads births, relations and consents; it never leaves this module."""
    return Visibility((VisibilityClause(None, frozenset(range(len(keys))), released_only=False),), now)


def _patient_context(principal: Principal) -> str | None:
    """The patient in context: the token's, else the person's own record."""
    return principal.patient or (principal.person.patient if principal.person else None)


def _linked_patient_ids(patient: dict[str, Any] | None) -> frozenset[str]:
    """The ids of the records that this one replaces or is replaced by."""
    links = (patient or {}).get("link", ())
    others = {str(one.get("other", {}).get("reference", "")) for one in links if one.get("type") in ("replaces", "replaced-by")}
    return frozenset(other.removeprefix("Patient/") for other in others if other.startswith("Patient/"))


def _related_patient_id(related: dict[str, Any]) -> str:
    """The id of the patient that a RelatedPerson is related to, or ""."""
    return str(related.get("patient", {}).get("reference", "")).removeprefix("Patient/")


async def _read_all(snapshot: Snapshot, type: str, where: Filter, facts: Visibility) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = await snapshot.find(type, where, facts, limit=500, after=after)
        found.extend(jsontext.parse(row.body) for row in page.rows)
        if page.next is None:
            return found
        after = page.next


async def _patients_under_care(snapshot: Snapshot, names: frozenset[str], facts: Visibility) -> frozenset[str]:
    """The patients under this practitioner's care."""
    patients: frozenset[str] = frozenset()
    if names:
        for type, param in _TREATING:
            patients |= await snapshot.patients_of(type, Has(param, RefersTo(names)), facts)
    return patients
