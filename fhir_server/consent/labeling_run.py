"""The state of labeling one resource: what the steps have read so far, and how they follow references."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from fhir_server.consent import security_labels
from fhir_server.consent.element_labels import ElementLabels
from fhir_server.consent.visibility_classes import CATEGORIES, MC, VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.resources import COMMON_DATA_CLASSES, ResourceType, catalog, elements

if TYPE_CHECKING:
    from fhir_server.consent.labeling import Labeler

INHERITED: Final = CATEGORIES | {MC}
"""The labels that a resource inherits from its context."""

# Elements that sum up the members of a resource, and so disclose what a labeled member says.
SUMMARY: Final = frozenset({"conclusion", "conclusionCode", "presentedForm", "interpretation", "note", "text", "contained"})


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A resource from which others inherit: its class, its release date (microseconds, 0: none), and a function that parses its body.

    ``depends_on``: the ``Type/id`` of the resources without which it is not visible.
    """

    key: VisibilityClass
    release_at: int
    parsed: Callable[[], Mapping[str, Any]]
    depends_on: tuple[str, ...] = ()

    @property
    def body(self) -> Mapping[str, Any]:
        return self.parsed()


Lookup = Callable[[str, str], Awaitable[LabelSource | None]]


class LabelingRun:
    """One resource that is being labeled: its body, its labels so far, and the resources it inherits from."""

    def __init__(self, labeler: Labeler, declared: ResourceType, resource: Mapping[str, Any], lookup: Lookup) -> None:
        self.labeler = labeler
        self.codes = labeler.codes
        self.type = declared
        self.resource = resource
        self.lookup = lookup
        self.data = data_class(declared, resource)
        self.patients = patient_ids(declared.name, resource)
        self.labels: set[str] = set(security_labels.labels(resource))
        self.possible: set[str] = set()
        self.release = security_labels.release_at(resource, labeler.policy.timezone)
        self.parts = ElementLabels()
        self.label_sources: set[str] = set()
        self.element = ""
        self.depends_on: set[str] = set()
        self.owners: set[tuple[str, str]] = set()
        self.needed_classes: set[str] = set()
        self.mentions = elements.mentions(resource, labeler.base)

    async def target(self, value: Any) -> tuple[bool, LabelSource | None]:
        """Whether ``value`` refers to a resource from which labels are inherited, and that resource; None if it is missing.

        A reference without a literal ``reference`` counts as text only.
        """
        name = elements.target_of(value)
        if name is None:
            text = value.get("reference") if isinstance(value, dict) else None
            # Nothing is known of a resource on another server.
            return isinstance(text, str) and "://" in text, None
        if not self.labeler.propagates_labels(name[0]):
            return False, None
        self.label_sources.add("/".join(name))
        return True, await self.lookup(*name)

    async def look_up_source(self, type: str, id: str) -> LabelSource | None:
        """The resource of this (type, id), from which this one inherits; None if it is missing."""
        self.label_sources.add(f"{type}/{id}")
        return await self.lookup(type, id)

    def label_part(self, location: Path, labels: set[str] | frozenset[str]) -> None:
        """Label a part, and the elements that sum up the resource."""
        if labels:
            for path in (location, *self.summaries):
                self.parts.add(path, labels)

    @property
    def own_patients(self) -> frozenset[str]:
        """The ``Patient/id`` of the patients of the resource."""
        return frozenset(f"Patient/{patient}" for patient in self.patients)

    @cached_property
    def summaries(self) -> tuple[Path, ...]:
        """The paths of the parts that sum up the resource."""
        names = sorted((SUMMARY | {*self.type.summaries}) & self.resource.keys())
        contained = enumerate(self.resource.get("contained", ()))
        # A contained practitioner or drug says nothing about a member.
        speaking = [("contained", number) for number, inner in contained if not _is_common(str(inner.get("resourceType")))]
        return (*((name,) for name in names if name != "contained"), *speaking)


def _is_common(type: str) -> bool:
    declared = catalog().get(type)
    return declared is not None and declared.data_class in COMMON_DATA_CLASSES


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
    """The data class of a resource: by the first declared code it has, else by its status, else by its type."""
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
