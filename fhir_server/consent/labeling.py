"""Labelling: from a resource, and what it refers to, to its visibility class and those of its parts.

Deterministic and without a clock.  Sensitivity goes *down* as row labels (encounter -> result, condition -> prescription)
and *up* only as labels of the element that names a labelled row (report -> result).  The steps are those of
``docs/policy.md`` on labelling.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.consent import security_labels
from fhir_server.consent.code_reading import CodeReading, read
from fhir_server.consent.decision import redactable
from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.consent.departments import department
from fhir_server.consent.element_labels import ElementLabels
from fhir_server.consent.policy import Policy
from fhir_server.consent.sensitivity_codes import SensitivityCodes, normalize_code
from fhir_server.consent.visibility_classes import CATEGORIES, HELD, MC, MIXED, PSYNOTE, UNCLASSIFIED, VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.resources import catalog, elements
from fhir_server.resources._declaration import ResourceType
from fhir_server.store import GuardedReference

# Rows of these classes are the same for everybody, or always in view of whoever sees a row that names them.
_COMMON: Final = frozenset({"directory", "medication-definition"})
# Where a kind nobody has classified is withheld from those who may see only known ordinary content.
_CLASSIFIED: Final = frozenset({"lab", "imaging", "vitals", "medication", "medication-definition", "visit", "condition"})
_INHERITED: Final = CATEGORIES | {MC}
# Elements whose items stand for themselves: a panel's components, a team's members.
_PARTED: Final = frozenset({"component", "participant"})
# Elements that sum up a row's members in words or codes, and so tell what a labelled member says.
_SUMMARY: Final = frozenset({"conclusion", "conclusionCode", "presentedForm", "interpretation", "note", "text", "contained"})


@dataclass(frozen=True, slots=True)
class LabelSource:
    """What a row lends to rows that name it: class, release instant, and ``parsed``, which gives its body when that is needed."""

    key: VisibilityClass
    release_at: int
    parsed: Callable[[], Mapping[str, Any]]

    @property
    def body(self) -> Mapping[str, Any]:
        return self.parsed()


Lookup = Callable[[str, str], Awaitable[LabelSource | None]]


@dataclass(frozen=True, slots=True)
class LabelingResult:
    """``patients`` who own the row; its class and release instant (microseconds, 0: none); classes of its parts; references
    that show only while their target does; and ``label_sources``, the ``Type/id`` whose change makes this labelling stale."""

    patients: tuple[str, ...]
    key: VisibilityClass
    release_at: int
    labeled_elements: tuple[tuple[Path, VisibilityClass], ...]
    guarded_references: tuple[GuardedReference, ...]
    label_sources: tuple[str, ...]


def patient_ids(type: str, resource: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the patients a resource is about: its deciding subjects, not whoever performed or is mentioned."""
    found = set()
    for path in elements.present(resource, catalog()[type].subjects):
        for _, value in elements.at(resource, path):
            target = elements.target_of(value)
            if path == "id" and isinstance(value, str):
                found.add(value)
            elif target is not None and target[0] == "Patient":
                found.add(target[1])
    return tuple(sorted(found))


def data_class(declared: ResourceType, resource: Mapping[str, Any]) -> str:
    """What the policy calls this row: the first of the declared category codes it has, else its status's, else its type's."""
    by_status = declared.by_status.get(str(resource.get("status")), declared.data_class)
    if not declared.by_category:
        return by_status
    codes = {
        str(coding.get("code"))
        for path in ("category", "type", "code")
        for _, concept in elements.at(resource, path)
        if isinstance(concept, dict)
        for coding in concept.get("coding", ())
    }
    return next((data for code, data in declared.by_category.items() if code in codes), by_status)


class Labeler:
    """Labels resources by a policy and a code book.  One per server; ``base`` is its FHIR base URL."""

    def __init__(self, policy: Policy, book: SensitivityCodes, base: str = "") -> None:
        self.policy = policy
        self.book = book
        self.base = base
        self._holds = frozenset(normalize_code(*one) for one in policy.holds)

    def propagates_labels(self, type: str) -> bool:
        """Whether rows of this type can lend labels to rows that name them."""
        declared = catalog().get(type)
        if declared is None or declared.data_class == "demographics":
            return False
        return declared.data_class != "directory" or type in DEPARTMENTS

    async def label(self, type: str, resource: Mapping[str, Any], lookup: Lookup) -> LabelingResult:
        """Label a parsed resource; ``lookup`` gives the current row of a (type, id), None where there is none."""
        return await _LabelingRun(self, catalog()[type], resource, lookup).run()

    def is_on_hold(self, reading: CodeReading) -> bool:
        return bool(self._holds & reading.codes)


class _LabelingRun:
    """The labelling of one resource."""

    def __init__(self, labeler: Labeler, declared: ResourceType, resource: Mapping[str, Any], lookup: Lookup) -> None:
        self._labeler = labeler
        self._book = labeler.book
        self._type = declared
        self._resource = resource
        self._lookup = lookup
        self._data = data_class(declared, resource)
        self._patients = patient_ids(declared.name, resource)
        self._labels: set[str] = set(security_labels.labels(resource))
        self._possible: set[str] = set()
        self._release = security_labels.release_at(resource, labeler.policy.timezone)
        self._parts = ElementLabels()
        self._lenders: set[str] = set()
        self._mentions = elements.mentions(resource, labeler.base)

    async def run(self) -> LabelingResult:
        if self._data == "directory":
            return LabelingResult((), VisibilityClass("directory"), 0, (), self._guarded_references(), ())
        self._read_codes(self._resource, self._type)
        self._read_contained()
        self._read_status()
        await self._required()
        await self._context()
        await self._departments()
        await self._knowledge()
        await self._members()
        self._words()
        if self._type.shared_rows == "all" and len(self._patients) > 1:
            self._labels.add(MIXED)
        if self._data == "psynote":
            self._labels.add(PSYNOTE)
        if self._labels & _INHERITED:  # the second signal that makes an ambiguous code count
            self._labels |= self._possible
        key = VisibilityClass(self._data, frozenset(self._labels))
        self._parts.redactable(self._resource, redactable(self._labeler.policy, self._data))
        labeled_elements = self._parts.labeled_elements(key)
        return LabelingResult(
            self._patients, key, self._release, labeled_elements, self._guarded_references(), tuple(sorted(self._lenders))
        )

    def _read_codes(self, resource: Mapping[str, Any], declared: ResourceType) -> None:
        for path in elements.present(resource, declared.label_codes + declared.must_be_classified):
            for place, value in elements.at(resource, path):
                reading = read(self._book, value)
                if self._labeler.is_on_hold(reading):
                    self._labels.add(HELD)
                if place[0] in _PARTED and resource is self._resource:
                    self._component(place[:2], path, reading)
                else:
                    self._labels |= reading.labels
                    self._possible |= reading.possible

    def _component(self, place: Path, path: str, reading: CodeReading) -> None:
        labels = set(reading.labels)
        if path == "component.code" and not reading.classified and self._data in _CLASSIFIED:
            labels.add(UNCLASSIFIED)
        self._part(place, labels)

    def _part(self, place: Path, labels: set[str] | frozenset[str]) -> None:
        """Give a part labels of its own, and with it whatever sums the row up."""
        if labels:
            self._parts.add(place, labels)
            for name in sorted(_SUMMARY & self._resource.keys()):
                self._parts.add((name,), labels)

    def _read_contained(self) -> None:
        for inner in self._resource.get("contained", ()):
            declared = catalog().get(str(inner.get("resourceType")))
            if declared is None:
                self._labels.add(UNCLASSIFIED)
                continue
            self._labels |= security_labels.labels(inner)
            self._read_codes(inner, declared)

    def _read_status(self) -> None:
        hidden = self._type.hidden_status
        judged = {str(coding.get("code")) for _, coding in elements.at(self._resource, "verificationStatus.coding")}
        if self._resource.get("status") in hidden or "entered-in-error" in judged:
            self._labels.add(HELD)

    async def _target(self, value: Any) -> tuple[bool, LabelSource | None]:
        """Whether ``value`` refers to a row that lends labels, and that row.  A logical reference is only words."""
        name = elements.target_of(value)
        if name is None:
            text = value.get("reference") if isinstance(value, dict) else None
            # A literal reference to another server's row: of that row we know nothing.
            return isinstance(text, str) and "://" in text, None
        if not self._labeler.propagates_labels(name[0]):
            return False, None
        self._lenders.add("/".join(name))
        return True, await self._lookup(*name)

    async def _required(self) -> None:
        """Take over all of the rows without which this one means nothing."""
        paths = elements.present(self._resource, self._type.depends_on)
        targets = [value for path in paths for _, value in elements.at(self._resource, path)]
        for value in targets:
            propagates_labels, target = await self._target(value)
            if target is None:
                self._labels |= {UNCLASSIFIED} if propagates_labels else set()
                continue
            self._labels |= target.key.labels
            self._release = max(self._release, target.release_at)
            name = elements.target_of(value)
            if name is not None:
                self._patients = tuple(sorted({*self._patients, *patient_ids(name[0], target.body)}))
            if self._type.name == "Binary":
                self._data = target.key.data
        if self._type.name == "Binary" and not targets:
            self._labels.add(UNCLASSIFIED)

    async def _context(self) -> None:
        for path in elements.present(self._resource, self._type.inherits_labels_from):
            for _, value in elements.at(self._resource, path):
                propagates_labels, target = await self._target(value)
                if target is not None:
                    self._labels |= target.key.labels & _INHERITED
                elif propagates_labels:
                    self._labels.add(UNCLASSIFIED)

    async def _departments(self) -> None:
        for path in elements.present(self._resource, self._type.departments):
            for _, value in elements.at(self._resource, path):
                name = elements.target_of(value)
                if name is None or name[0] not in DEPARTMENTS:
                    continue
                found = await department(self._book, *name, self._propagated)
                self._labels |= found.labels
                if not found.mapped and self._data == "visit":
                    self._labels.add(UNCLASSIFIED)

    async def _propagated(self, type: str, id: str) -> LabelSource | None:
        self._lenders.add(f"{type}/{id}")
        return await self._lookup(type, id)

    async def _knowledge(self) -> None:
        """Whatever is not known as ordinary, or as sensitive, is unclassified; so is a row that names no kind at all."""
        identifying = self._type.must_be_classified or tuple(path for path in ("code",) if path in self._type.label_codes)
        if not identifying or self._data not in _CLASSIFIED:
            return
        known = []
        for path in elements.present(self._resource, identifying):
            for _, value in elements.at(self._resource, path):
                if isinstance(value, dict) and "reference" in value:
                    known.append(await self._known_row(value))
                else:
                    known.append(read(self._book, value).classified)
        if not known or not all(known):
            self._labels.add(UNCLASSIFIED)

    async def _known_row(self, value: Mapping[str, Any]) -> bool:
        """Whether the row (or contained resource) that stands for a kind, such as a Medication, has a code that is known."""
        if str(value["reference"]).startswith("#"):
            bodies = [one for one in self._resource.get("contained", ()) if f"#{one.get('id')}" == value["reference"]]
        else:
            _, target = await self._target(value)
            bodies = [target.body] if target is not None else []
        return any(read(self._book, concept).classified for body in bodies for _, concept in elements.at(body, "code"))

    async def _members(self) -> None:
        for path in elements.present(self._resource, self._type.member_references):
            for place, value in elements.at(self._resource, path):
                _, target = await self._target(value)
                if target is None:
                    continue
                item = place[:2] if len(place) > 1 and isinstance(place[1], int) else place[:1]
                self._part(item, target.key.labels)
                if self._data in ("lab", "imaging") and self._resource.keys() & _SUMMARY:  # which speaks of the result still to come
                    self._release = max(self._release, target.release_at)

    def _words(self) -> None:
        for one in self._mentions:
            if one.text and one.path and one.path[0] not in ("text", "meta") and (labels := self._book.labels_in_text(one.text)):
                self._parts.add(elements.removal_path(self._type.name, one.path), labels)

    def _guarded_references(self) -> tuple[GuardedReference, ...]:
        """References to rows that not everybody sees; those to the row's own patient tell nothing new."""
        found = []
        for one in self._mentions:
            place, target = one.path, one.target
            declared = catalog().get(target[0]) if target else None
            if target is None or (declared is not None and declared.data_class in _COMMON):
                continue
            if target[0] == "Patient" and self._patients == (target[1],):
                continue
            # What surrounds a reference to another patient tells of that patient too.
            other = target[0] == "Patient" and len(place) > 2 and isinstance(place[1], int)
            found.append(GuardedReference(place[:2] if other else elements.removal_path(self._type.name, place), "/".join(target)))
        return tuple(found)
