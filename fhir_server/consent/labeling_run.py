"""The state of labeling one resource: what the steps have read so far, and how they follow references."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fhir_server.consent import element_reading, security_labels
from fhir_server.consent.code_reading import CodeReading
from fhir_server.consent.contained import ContainedResources
from fhir_server.consent.departments import PLACES, Department, HasBodies, SingleBody, read_department
from fhir_server.consent.departments import TYPES as DEPARTMENT_TYPES
from fhir_server.consent.element_labels import ElementLabels
from fhir_server.consent.element_reading import Reading, Value, removable
from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.visibility_classes import CATEGORIES, MC
from fhir_server.jsontext import Path
from fhir_server.resources import COMMON_DATA_CLASSES, ResourceType, catalog, definitions, elements
from fhir_server.resources.references import parse_reference

if TYPE_CHECKING:
    from fhir_server.consent.labeling import Labeler

INHERITED: Final = CATEGORIES | {MC}
"""The labels that a resource inherits from its context."""

# Elements that sum up the members of a resource, and so disclose what a labeled member says.
SUMMARY: Final = frozenset({
    "conclusion", "conclusionCode", "presentedForm", "interpretation", "note", "text", "contained",
    # of a bill
    "total", "totalNet", "totalGross", "totalPriceComponent", "payment", "benefitBalance", "disposition", "processNote",
})  # fmt: skip


Lookup = Callable[[str, str], Awaitable[LabelSource | None]]
Referrers = Callable[[tuple[str, ...]], Awaitable[Mapping[str, LabelSource]]]
"""From reference parameters ("Type.param") to the resources by name that refer to this one in a version of theirs."""


class LabelingRun:
    """One resource that is being labeled: its body, its labels so far, and the resources it inherits from.

    ``reading``: what it says and refers to.  ``contained``: the resources that it contains, or that its container contains.
    ``label_sources``: those of its container.
    """

    def __init__(
        self,
        labeler: Labeler,
        declared: ResourceType,
        resource: Mapping[str, Any],
        reading: Reading,
        lookup: Lookup,
        contained: ContainedResources,
        referrers: Referrers | None = None,
        label_sources: set[str] | None = None,
    ) -> None:
        self.labeler = labeler
        self.codes = labeler.codes
        self.type = declared
        self.resource = resource
        self.reading = reading
        self.lookup = lookup
        self.contained = contained
        self.referrers = referrers
        self.data = data_class(declared, resource)
        self.patients = patient_ids(declared.name, resource)
        self.labels: set[str] = set(security_labels.labels(resource))
        self.possible: set[str] = set()
        self.release = security_labels.release_at(resource, labeler.policy.timezone)
        self.parts = ElementLabels()
        self.label_sources: set[str] = set() if label_sources is None else label_sources
        self.element = ""
        self.depends_on: set[str] = set()
        self.owners: set[tuple[str, str]] = set()
        self.owner_classes: set[str] = set()
        self.needed_classes: set[str] = set()
        self.kinds: list[tuple[Value, CodeReading | None]] = []
        self.has_known_department = False
        self._departments: dict[str, Department] = {}
        self._summaries: tuple[Path, ...] | None = None

    @property
    def class_codes(self) -> frozenset[str]:
        """The codes that give resources of this type their data class, in lower case."""
        return _class_codes(self.type.name)

    def inner(self, declared: ResourceType, body: Mapping[str, Any]) -> LabelingRun:
        """The labeling of a contained resource."""
        reading = element_reading.read(declared.name, body, self.labeler.base)
        return LabelingRun(self.labeler, declared, body, reading, self.lookup, self.contained, None, self.label_sources)

    async def target(self, value: Any, path: str = "") -> tuple[bool, LabelSource | None]:
        """Whether ``value``, found at ``path``, refers to a resource from which labels are inherited, and that resource; None if missing.

        What cannot be read or is on another server counts as missing, unless its type says that nothing is inherited from it.  A
        Reference with no more than a display counts as text only.
        """
        number = self.contained.number(value)
        if number is not None:
            return True, await self.contained.source(number, self)
        name = elements.target_of(value)
        if name is None:
            return self._may_lend(value, path), None
        if not self.labeler.propagates_labels(name[0]) or name[0] == "Practitioner":
            return False, None
        self.label_sources.add("/".join(name))
        return True, await self.lookup(*name)

    def _may_lend(self, value: Any, path: str) -> bool:
        """Whether labels might be inherited from what a reference that names no resource of this server stands for."""
        types = self._possible_types(value, path)
        return any(type not in catalog() or (type != "Practitioner" and self.labeler.propagates_labels(type)) for type in types)

    def names_unknown_place(self, value: Any, path: str) -> bool:
        """Whether ``value``, which names no department of this server, stands for one: for a place, a service or a role, not a person."""
        types = self._possible_types(value, path)
        return bool(types) and all(type not in catalog() or type in PLACES for type in types)

    def _possible_types(self, value: Any, path: str) -> tuple[str, ...]:
        """The types of what a reference stands for, if it can be told, that names no resource of this server; "" is an unknown type.

        Empty for what is no such reference: a code, a display alone, the fragment that means the container.
        """
        text = value.get("reference") if isinstance(value, dict) else None
        if isinstance(text, str):
            written = parse_reference(text)
            return () if text == "#" else (written.type if written else "",)
        if not isinstance(value, dict) or "identifier" not in value:
            return ()
        stated = value.get("type")
        return (stated,) if isinstance(stated, str) else definitions.references(self.type.name).get(path, ("",))

    async def department(self, value: Any) -> Department | None:
        """What is known of the department to which ``value`` refers, and of all it is part of; None if it refers to none."""
        found = await self._resolve_department(value)
        if found is None:
            return None
        name = str(value.get("reference")) if isinstance(value, dict) else str(value)
        if name not in self._departments:
            self._departments[name] = await read_department(self.codes, *found, self._resolve_department)
        return self._departments[name]

    async def own_department(self) -> Department:
        """What this resource says as a department."""
        return await read_department(self.codes, self.type.name, SingleBody(self.resource), self._resolve_department)

    async def _resolve_department(self, value: Any) -> tuple[str, HasBodies | None] | None:
        number = self.contained.number(value)
        if number is not None:
            body = self.contained.bodies[number]
            type = str(body.get("resourceType"))
            return (type, SingleBody(body)) if type in DEPARTMENT_TYPES else None
        name = elements.target_of(value)
        if name is None or name[0] not in DEPARTMENT_TYPES:
            return None
        self.label_sources.add("/".join(name))
        return name[0], await self.lookup(*name)

    def add_part(self, part: Path, labels: set[str] | frozenset[str]) -> None:
        """Label a part, or the resource if R4 requires the part."""
        path = removable(self.type.name, part)
        if path:
            self.parts.add(path, labels)
        else:
            self.labels |= labels

    def label_part(self, location: Path, labels: set[str] | frozenset[str]) -> None:
        """Label a part, and the elements that sum up the resource."""
        if labels:
            self.add_part(location, labels)
            for path in self.summaries:
                self.parts.add(path, labels)

    @property
    def own_patients(self) -> frozenset[str]:
        """The ``Patient/id`` of the patients of the resource."""
        return frozenset(f"Patient/{patient}" for patient in self.patients)

    @property
    def summaries(self) -> tuple[Path, ...]:
        """The paths of the parts that sum up the resource."""
        if self._summaries is None:
            self._summaries = self._find_summaries()
        return self._summaries

    def _find_summaries(self) -> tuple[Path, ...]:
        names = sorted((SUMMARY | {*self.type.summaries}) & self.resource.keys())
        contained = enumerate(self.resource.get("contained", ()))
        # A contained practitioner or drug says nothing about a member.
        speaking = [("contained", number) for number, inner in contained if not _is_common(str(inner.get("resourceType")))]
        return (*((name,) for name in names if name != "contained"), *speaking)


def _is_common(type: str) -> bool:
    declared = catalog().get(type)
    return declared is not None and declared.data_class in COMMON_DATA_CLASSES


@cache
def _class_codes(type: str) -> frozenset[str]:
    return frozenset(code.lower() for code in catalog()[type].by_category)


def patient_ids(type: str, resource: Mapping[str, Any]) -> tuple[str, ...]:
    """The sorted ids of the patients a resource is about: its subjects, not performers or others it mentions."""
    found = set()
    for path, _, value in elements.located(resource, catalog()[type].subjects):
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
    codes = set()
    for name in ("category", "type", "code"):
        value = resource.get(name)
        for concept in value if type(value) is list else (value,):
            if type(concept) is dict:
                codes.update([str(coding.get("code")) for coding in concept.get("coding", ())])
    return next((data for code, data in declared.by_category.items() if code in codes), by_status)
