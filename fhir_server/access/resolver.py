"""Resolves a principal to permissions: who asks, what the policy lets them see, and until when.

``smart`` says who asks and ``consent`` what may be seen; they meet only here.  The facts come from the Patient,
RelatedPerson and Consent rows of the caller's own snapshot, read with unrestricted visibility, so that no second table can
disagree with the record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fhir_server import jsontext
from fhir_server.access.pending_labels import PendingLabels, hidden_from
from fhir_server.access.permissions import STORED, AdmittedClasses, Permissions, patient_context
from fhir_server.access.stored_parameters import StoredParameters
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import decision, relationships
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import ActorKind, Policy
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.resources import COMMON_DATA_CLASSES
from fhir_server.resources.elements import target_of
from fhir_server.search.filters import Filter, Has, IdIs, OfPatient, RefersTo
from fhir_server.search.visibility import Visibility
from fhir_server.smart.core.persons import Person
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Snapshot

_ROLE_ACTORS = {"clinician": ActorKind.CLINICIAN, "billing": ActorKind.BILLING_OFFICE, "privacy": ActorKind.PRIVACY_OFFICE}
# The search parameters in which a practitioner must be named for a patient to be under that practitioner's care.
_TREATING = (("CareTeam", "participant"), ("Encounter", "participant"), ("Patient", "general-practitioner"), ("Appointment", "actor"))


@dataclass(frozen=True, slots=True)
class ResolvedCaller:
    """A principal in the policy's terms; the fields are those of Permissions."""

    actor: Actor | None = None
    patients: frozenset[str] | None = frozenset()
    names: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    valid_until: int = MAX_INSTANT


@dataclass(frozen=True, slots=True)
class AccessibleRecord:
    """A record that a person may open: the id and body of the Patient, the role of the person, and the reference that names the person."""

    patient: str
    resource: dict[str, Any]
    actor: Actor
    name: str


@dataclass(frozen=True, slots=True)
class FoundRelationship:
    """A person's relationship to a patient, the body of the Patient, and the references by which rows name the person."""

    relationship: relationships.Relationship
    resource: dict[str, Any] | None
    names: frozenset[str]


class PermissionResolver:
    """Resolves principals to permissions.  One per server process; caches the classes that the policy admits, by actor."""

    def __init__(self, policy: Policy, base: str) -> None:
        self._policy = policy
        self._base = base
        self.timezone = policy.timezone
        self._pending_labels = PendingLabels()
        self._stored_parameters = StoredParameters()
        self._cache: dict[tuple[Actor, frozenset[str]], tuple[tuple[str, ...], AdmittedClasses]] = {}

    async def resolve(self, snapshot: Snapshot, principal: Principal, now: int, *, is_committed: bool = False) -> Permissions:
        """The permissions of this principal at ``now`` (microseconds).  Without an actor nothing is visible.

        ``is_committed``: the snapshot is not that of a transaction.
        """
        epoch = await snapshot.permission_epoch(patient_context(principal))
        keys = await snapshot.classes()
        pending = await self._pending_labels.read(snapshot)
        caller = await self._resolve_caller(snapshot, principal, Visibility.unrestricted(len(keys), now), now)
        permissions = Permissions(
            principal=principal,
            actor=caller.actor,
            patients=caller.patients,
            classes=self._cached_admitted_classes(caller.actor, keys, principal.withheld_labels)
            if caller.actor
            else AdmittedClasses({}, {}),
            names=caller.names,
            denied=caller.denied,
            valid_until=min(caller.valid_until, principal.expires),
            epoch=epoch,
            base=self._base,
            policy=self._policy,
            pending=pending,
            parameters=await self._stored_parameters.read(snapshot, epoch.security, is_committed=is_committed),
        )
        if pending and not permissions.sees_everything:
            permissions = replace(permissions, hidden=hidden_from(pending, self._policy, caller.actor, principal.withheld_labels))
        targets = permissions.scope_reference_targets()
        if not targets:
            return permissions
        return permissions.with_visible_targets(await snapshot.visible(targets, lambda type: permissions.visibility(type, now)))

    async def _resolve_caller(self, snapshot: Snapshot, principal: Principal, facts: Visibility, now: int) -> ResolvedCaller:
        person = principal.person
        if principal.client_kind == "backend":
            return ResolvedCaller(Actor(ActorKind.BACKEND, clearance=principal.client_clearance), None)
        if person is None:
            return ResolvedCaller()
        if person.role in _ROLE_ACTORS:
            names = frozenset({f"Practitioner/{person.practitioner}"} if person.practitioner else ())
            if person.role != "clinician":
                return ResolvedCaller(Actor(_ROLE_ACTORS[person.role]), None, names)
            # Any write may change who is under whose care, so these permissions hold for this request only.
            return ResolvedCaller(Actor(ActorKind.CLINICIAN), await _patients_under_care(snapshot, names, facts), names, valid_until=now)
        patient = patient_context(principal)
        if patient is None:
            return ResolvedCaller()
        found = await self._relationship(snapshot, person, patient, facts, now)
        relationship = found.relationship
        return ResolvedCaller(relationship.actor, frozenset({patient}), found.names, relationship.denied, relationship.valid_until)

    async def accessible_records(self, snapshot: Snapshot, person: Person, now: int) -> list[AccessibleRecord]:
        """The records that this person may open at ``now``, the person's own first."""
        keys = await snapshot.classes()
        facts = Visibility.unrestricted(len(keys), now)
        if person.role == "clinician":
            patients = sorted(await _patients_under_care(snapshot, frozenset({f"Practitioner/{person.practitioner}"}), facts))
        else:
            related = await _read_all(snapshot, "RelatedPerson", IdIs(person.related_persons), facts)
            others = {_related_patient_id(relation) for relation in related} - {person.patient, ""}
            patients = [person.patient, *sorted(others)] if person.patient else sorted(others)
        records = []
        for patient in patients:
            found = await self._relationship(snapshot, person, patient, facts, now)
            actor, resource = found.relationship.actor, found.resource
            if actor is not None and resource is not None and self._cached_admitted_classes(actor, keys).unconditional:
                records.append(AccessibleRecord(patient, resource, actor, min(found.names, default="")))
        return records

    async def _relationship(self, snapshot: Snapshot, person: Person, patient: str, facts: Visibility, now: int) -> FoundRelationship:
        """The role of this person for this patient, as the record has it at ``now``."""
        row = await snapshot.read("Patient", patient, facts)
        resource = jsontext.parse(row.body) if row else None
        if person.role == "clinician":
            names = frozenset({f"Practitioner/{person.practitioner}"})
            return FoundRelationship(relationships.Relationship(Actor(ActorKind.CLINICIAN), now), resource, names)
        related = await _read_all(snapshot, "RelatedPerson", IdIs(person.related_persons), facts)
        related = [relation for relation in related if _related_patient_id(relation) == patient]
        consents = await _read_all(snapshot, "Consent", OfPatient(frozenset({patient})), facts)
        requester = relationships.Requester(person.role, person.patient, person.practitioner, person.related_persons)
        linked = await _read_all(snapshot, "Patient", IdIs(_linked_patient_ids(resource)), facts)
        relationship = relationships.resolve_relationship(
            self._policy, now, patient=resource, person=requester, related=related, consents=consents, linked=linked
        )
        if linked:
            # The other record's birth date counts too, and the epoch covers only this patient's changes: resolve at each request.
            relationship = replace(relationship, valid_until=now)
        is_own = person.patient == patient
        names = frozenset({f"Patient/{patient}"} if is_own else {f"RelatedPerson/{relation['id']}" for relation in related})
        return FoundRelationship(relationship, resource, names)

    def _cached_admitted_classes(self, actor: Actor, keys: tuple[str, ...], withheld: frozenset[str] = frozenset()) -> AdmittedClasses:
        cached = self._cache.get((actor, withheld))
        # Compares the keys, not their count: an id that a failed transaction gave out is given to another class later.
        if cached is None or cached[0] != keys:
            cached = self._cache[actor, withheld] = (keys, self._admitted_classes(actor, keys, withheld))
        return cached[1]

    def _admitted_classes(self, actor: Actor, keys: tuple[str, ...], withheld: frozenset[str]) -> AdmittedClasses:
        """``withheld``: labels that the person withholds from the client which acts for that person."""
        unconditional: dict[str, set[int]] = {}
        if_named: dict[str, set[int]] = {}
        if_referred: dict[str, set[int]] = {}
        params: dict[str, tuple[str, ...]] = {}
        guarded: dict[int, frozenset[str]] = {}
        stored = frozenset[int]()
        if_target_named: dict[tuple[str, tuple[str, ...]], set[int]] = {}
        for class_id, key in enumerate(keys):
            visibility_class = VisibilityClass.parse(key)
            data = visibility_class.data
            types = frozenset(type for _, _, type in visibility_class.targets if type)
            if visibility_class.element.partition("@")[0] and types:
                guarded[class_id] = types
            if visibility_class.labels & withheld:
                continue
            if "*" in actor.clearance:
                # A feed that is cleared for everything must find again all that it wrote.
                if visibility_class == STORED:
                    stored = frozenset({class_id})
                else:
                    unconditional.setdefault(data, set()).add(class_id)
            elif decision.permits(self._policy, actor, visibility_class):
                named = [by for target, _, _ in visibility_class.targets if (by := self._own_conditions(actor, target))]
                if named:
                    if len(named) == 1 and class_id not in guarded:
                        if_target_named.setdefault((data, named[0]), set()).add(class_id)
                    continue
                condition = decision.own_conditions(self._policy, actor, data)
                if data in COMMON_DATA_CLASSES and visibility_class.labels:
                    if_referred.setdefault(data, set()).add(class_id)
                    continue
                (unconditional if condition is None else if_named).setdefault(data, set()).add(class_id)
                params[data] = condition or ()
        return AdmittedClasses(
            {data: frozenset(class_ids) for data, class_ids in unconditional.items()},
            {data: (frozenset(class_ids), params[data]) for data, class_ids in if_named.items()},
            {data: frozenset(class_ids) for data, class_ids in if_referred.items()},
            _by_data(if_target_named),
            guarded,
            stored,
        )

    def _own_conditions(self, actor: Actor, data: str) -> tuple[str, ...] | None:
        return decision.own_conditions(self._policy, actor, data)


def _by_data(classes: dict[tuple[str, tuple[str, ...]], set[int]]) -> dict[str, tuple[tuple[frozenset[int], tuple[str, ...]], ...]]:
    found: dict[str, tuple[tuple[frozenset[int], tuple[str, ...]], ...]] = {}
    for (data, params), class_ids in classes.items():
        found[data] = (*found.get(data, ()), (frozenset(class_ids), params))
    return found


def _linked_patient_ids(patient: dict[str, Any] | None) -> frozenset[str]:
    """The ids of the Patients that this one replaces or is replaced by."""
    links = (patient or {}).get("link", ())
    others = [target_of(link.get("other", {})) for link in links if link.get("type") in ("replaces", "replaced-by")]
    return frozenset(other[1] for other in others if other is not None and other[0] == "Patient")


def _related_patient_id(related: dict[str, Any]) -> str:
    """The id of the patient that a RelatedPerson is related to, or ""."""
    target = target_of(related.get("patient", {}))
    return target[1] if target is not None and target[0] == "Patient" else ""


async def _read_all(snapshot: Snapshot, type: str, where: Filter, facts: Visibility) -> list[dict[str, Any]]:
    resources: list[dict[str, Any]] = []
    after = None
    while True:
        page = await snapshot.find(type, where, facts, limit=500, after=after)
        resources.extend(jsontext.parse(row.body) for row in page.rows)
        if page.next is None:
            return resources
        after = page.next


async def _patients_under_care(snapshot: Snapshot, names: frozenset[str], facts: Visibility) -> frozenset[str]:
    """The ids of the patients who are under the care of a practitioner with one of these references."""
    patients: frozenset[str] = frozenset()
    if names:
        for type, param in _TREATING:
            patients |= await snapshot.patients_of(type, Has(param, RefersTo(names)), facts)
    return patients
