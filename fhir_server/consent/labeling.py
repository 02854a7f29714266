"""Labels a resource: computes its visibility class and those of its parts from the resource and what it refers to.

The result depends neither on time nor on the caller. A resource inherits categories from its context (visit -> result). Labels of its
members become labels of the elements that refer to them (report -> result). The steps are those of docs/policy.md, "How a resource
is labeled"; comments give their numbers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.consent import security_labels
from fhir_server.consent.code_reading import CodeReading, read
from fhir_server.consent.decision import redactable
from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.consent.departments import read_department
from fhir_server.consent.element_labels import ElementLabels
from fhir_server.consent.policy import Policy
from fhir_server.consent.sensitivity_codes import SensitivityCodes, normalize_code
from fhir_server.consent.visibility_classes import CATEGORIES, HELD, MC, MIXED, PSYNOTE, UNCLASSIFIED, VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.resources import COMMON_DATA_CLASSES, ResourceType, catalog, elements
from fhir_server.store import GuardedReference

# Data classes whose resources must be classified.
_MUST_BE_CLASSIFIED: Final = frozenset({"lab", "imaging", "vitals", "medication", "medication-definition", "visit", "condition"})
_INHERITED: Final = CATEGORIES | {MC}
# Elements whose items are labeled as parts: the components of a panel, the members of a team.
_LABELED_ITEMS: Final = frozenset({"component", "participant"})
# Elements that sum up the members of a resource, and so disclose what a labeled member says.
_SUMMARY: Final = frozenset({"conclusion", "conclusionCode", "presentedForm", "interpretation", "note", "text", "contained"})


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A resource from which others inherit: its class, its release date (microseconds, 0: none), and a function that parses its body."""

    key: VisibilityClass
    release_at: int
    parsed: Callable[[], Mapping[str, Any]]

    @property
    def body(self) -> Mapping[str, Any]:
        return self.parsed()


Lookup = Callable[[str, str], Awaitable[LabelSource | None]]


@dataclass(frozen=True, slots=True)
class LabelingResult:
    """The labels of a resource.

    ``patients``            ids of the patients it is about
    ``key``                 its visibility class
    ``release_at``          its release date, in microseconds since 1970 UTC (0: none)
    ``labeled_elements``    (path, class) of the parts with a class of their own
    ``guarded_references``  references that a caller sees only with their target
    ``label_sources``       the ``Type/id`` of the resources it inherits from: it must be labeled again when one changes
    """

    patients: tuple[str, ...]
    key: VisibilityClass
    release_at: int
    labeled_elements: tuple[tuple[Path, VisibilityClass], ...]
    guarded_references: tuple[GuardedReference, ...]
    label_sources: tuple[str, ...]


def patient_ids(type: str, resource: Mapping[str, Any]) -> tuple[str, ...]:
    """The sorted ids of the patients a resource is about: its subjects, not performers or others it mentions."""
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
    """The data class of a resource: by its source, else by the first declared code it has, else by its status, else by its type."""
    if declared.by_source:
        source = str(resource.get("meta", {}).get("source", ""))
        for beginning, data in declared.by_source.items():
            if source.startswith(beginning):
                return data
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
    """Labels resources by a policy and the lists of sensitive codes; ``base`` is the server's FHIR base URL."""

    def __init__(self, policy: Policy, codes: SensitivityCodes, base: str = "") -> None:
        self.policy = policy
        self.codes = codes
        self.base = base
        self._holds = frozenset(normalize_code(*hold) for hold in policy.holds)

    def propagates_labels(self, type: str) -> bool:
        """Whether a resource can inherit labels from resources of this type."""
        declared = catalog().get(type)
        if declared is None or declared.data_class == "demographics":
            return False
        return declared.data_class != "directory" or type in DEPARTMENTS

    async def label(self, type: str, resource: Mapping[str, Any], lookup: Lookup) -> LabelingResult:
        """Label a parsed resource; ``lookup`` returns the current resource of a (type, id), or None."""
        return await _LabelingRun(self, catalog()[type], resource, lookup).run()

    def is_on_hold(self, reading: CodeReading) -> bool:
        """Whether a code is on the institution's hold list."""
        return bool(self._holds & reading.codes)


class _LabelingRun:
    """Labels one resource."""

    def __init__(self, labeler: Labeler, declared: ResourceType, resource: Mapping[str, Any], lookup: Lookup) -> None:
        self._labeler = labeler
        self._codes = labeler.codes
        self._type = declared
        self._resource = resource
        self._lookup = lookup
        self._data = data_class(declared, resource)
        self._patients = patient_ids(declared.name, resource)
        self._labels: set[str] = set(security_labels.labels(resource))
        self._possible: set[str] = set()
        self._release = security_labels.release_at(resource, labeler.policy.timezone)
        self._parts = ElementLabels()
        self._label_sources: set[str] = set()
        self._mentions = elements.mentions(resource, labeler.base)

    async def run(self) -> LabelingResult:
        if self._data == "directory":
            return LabelingResult((), VisibilityClass("directory"), 0, (), self._guarded_references(), ())
        self._read_codes(self._resource, self._type)  # steps 1 and 2 are in __init__
        self._read_contained()
        self._read_status()
        await self._read_dependencies()
        await self._read_context()
        await self._read_departments()
        await self._require_classification()
        await self._read_members()
        self._read_free_text()
        if self._type.shared_rows == "all" and len(self._patients) > 1:
            self._labels.add(MIXED)
        if self._data == "psynote":
            self._labels.add(PSYNOTE)
        if self._labels & _INHERITED:  # step 13: the second signal for ambiguous codes
            self._labels |= self._possible
        key = VisibilityClass(self._data, frozenset(self._labels))
        self._parts.add_redactable(self._resource, redactable(self._labeler.policy, self._data))
        labeled_elements = self._parts.labeled_elements(key)
        return LabelingResult(
            self._patients, key, self._release, labeled_elements, self._guarded_references(), tuple(sorted(self._label_sources))
        )

    def _read_codes(self, resource: Mapping[str, Any], declared: ResourceType) -> None:
        """Step 3: codes and keywords of coded elements."""
        for path in elements.present(resource, declared.label_codes + declared.must_be_classified):
            for location, value in elements.at(resource, path):
                reading = read(self._codes, value)
                if self._labeler.is_on_hold(reading):
                    self._labels.add(HELD)
                if location[0] in _LABELED_ITEMS and resource is self._resource:
                    self._label_item(location[:2], path, reading)
                else:
                    self._labels |= reading.labels
                    self._possible |= reading.possible

    def _label_item(self, location: Path, path: str, reading: CodeReading) -> None:
        labels = set(reading.labels)
        if path == "component.code" and not reading.classified and self._data in _MUST_BE_CLASSIFIED:
            labels.add(UNCLASSIFIED)
        self._label_part(location, labels)

    def _label_part(self, location: Path, labels: set[str] | frozenset[str]) -> None:
        """Label a part, and the elements that sum up the resource."""
        if labels:
            self._parts.add(location, labels)
            for name in sorted(_SUMMARY & self._resource.keys()):
                self._parts.add((name,), labels)

    def _read_contained(self) -> None:
        """Step 4: contained resources."""
        for inner in self._resource.get("contained", ()):
            declared = catalog().get(str(inner.get("resourceType")))
            if declared is None:
                self._labels.add(UNCLASSIFIED)
                continue
            self._labels |= security_labels.labels(inner)
            self._read_codes(inner, declared)

    def _read_status(self) -> None:
        """Step 5: status."""
        hidden = self._type.hidden_status
        verification = {str(coding.get("code")) for _, coding in elements.at(self._resource, "verificationStatus.coding")}
        if self._resource.get("status") in hidden or "entered-in-error" in verification:
            self._labels.add(HELD)

    async def _target(self, value: Any) -> tuple[bool, LabelSource | None]:
        """Whether ``value`` refers to a resource from which labels are inherited, and that resource; None if it is missing.

        A reference without a literal ``reference`` counts as text only.
        """
        name = elements.target_of(value)
        if name is None:
            text = value.get("reference") if isinstance(value, dict) else None
            # Nothing is known of a resource on another server.
            return isinstance(text, str) and "://" in text, None
        if not self._labeler.propagates_labels(name[0]):
            return False, None
        self._label_sources.add("/".join(name))
        return True, await self._lookup(*name)

    async def _read_dependencies(self) -> None:
        """Step 6: labels, release date and patients of the resources without which this one means nothing."""
        paths = elements.present(self._resource, self._type.depends_on)
        targets = [value for path in paths for _, value in elements.at(self._resource, path)]
        for value in targets:
            is_source, target = await self._target(value)
            if target is None:
                self._labels |= {UNCLASSIFIED} if is_source else set()
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

    async def _read_context(self) -> None:
        """Step 7: categories of the context."""
        for path in elements.present(self._resource, self._type.inherits_labels_from):
            for _, value in elements.at(self._resource, path):
                is_source, target = await self._target(value)
                if target is not None:
                    self._labels |= target.key.labels & _INHERITED
                elif is_source:
                    self._labels.add(UNCLASSIFIED)

    async def _read_departments(self) -> None:
        """Step 8: departments."""
        for path in elements.present(self._resource, self._type.departments):
            for _, value in elements.at(self._resource, path):
                name = elements.target_of(value)
                if name is None or name[0] not in DEPARTMENTS:
                    continue
                department = await read_department(self._codes, *name, self._look_up_source)
                self._labels |= department.labels
                if not department.is_classified and self._data == "visit":
                    self._labels.add(UNCLASSIFIED)

    async def _look_up_source(self, type: str, id: str) -> LabelSource | None:
        self._label_sources.add(f"{type}/{id}")
        return await self._lookup(type, id)

    async def _require_classification(self) -> None:
        """Step 9: a resource whose kind has no known code, or that has no code, is unclassified."""
        identifying = self._type.must_be_classified or tuple(path for path in ("code",) if path in self._type.label_codes)
        if not identifying or self._data not in _MUST_BE_CLASSIFIED:
            return
        known = []
        for path in elements.present(self._resource, identifying):
            for _, value in elements.at(self._resource, path):
                if isinstance(value, dict) and "reference" in value:
                    known.append(await self._has_known_code(value))
                else:
                    known.append(read(self._codes, value).classified)
        if not known or not all(known):
            self._labels.add(UNCLASSIFIED)

    async def _has_known_code(self, value: Mapping[str, Any]) -> bool:
        """Whether the resource that is referred to (such as a Medication, contained or not) has a known code."""
        if str(value["reference"]).startswith("#"):
            bodies = [inner for inner in self._resource.get("contained", ()) if f"#{inner.get('id')}" == value["reference"]]
        else:
            _, target = await self._target(value)
            bodies = [target.body] if target is not None else []
        return any(read(self._codes, concept).classified for body in bodies for _, concept in elements.at(body, "code"))

    async def _read_members(self) -> None:
        """Step 10: members."""
        for path in elements.present(self._resource, self._type.member_references):
            for location, value in elements.at(self._resource, path):
                _, target = await self._target(value)
                if target is None:
                    continue
                item = location[:2] if len(location) > 1 and isinstance(location[1], int) else location[:1]
                self._label_part(item, target.key.labels)
                # The summary discloses a result that is not yet released.
                if self._data in ("lab", "imaging") and self._resource.keys() & _SUMMARY:
                    self._release = max(self._release, target.release_at)

    def _read_free_text(self) -> None:
        """Step 11: keywords in free text, the narrative excepted."""
        for mention in self._mentions:
            if not mention.text or not mention.path or mention.path[0] in ("text", "meta"):
                continue
            if labels := self._codes.labels_in_text(mention.text):
                self._parts.add(elements.removal_path(self._type.name, mention.path), labels)

    def _guarded_references(self) -> tuple[GuardedReference, ...]:
        """Step 15: all references, except those to common resources and to the only patient of the resource."""
        found = []
        for mention in self._mentions:
            path, target = mention.path, mention.target
            declared = catalog().get(target[0]) if target else None
            if target is None or (declared is not None and declared.data_class in COMMON_DATA_CLASSES):
                continue
            if target[0] == "Patient" and self._patients == (target[1],):
                continue
            # The item of an array that refers to another patient is withheld whole: it says more about that patient.
            is_patient_item = target[0] == "Patient" and len(path) > 2 and isinstance(path[1], int)
            removed = path[:2] if is_patient_item else elements.removal_path(self._type.name, path)
            found.append(GuardedReference(removed, "/".join(target)))
        return tuple(found)
