"""Contained resources: each is labeled as a row of its own would be, and lends what that row would lend.

A contained resource has no row, so what a caller would not see of it as a row becomes a labeled element: the resource itself, parts of
it, and every reference to it (docs/policy.md, "How a resource is labeled", step 4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fhir_server.consent import security_labels
from fhir_server.consent.decision import redactable
from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.visibility_classes import CATEGORIES, MC, MIXED, UNCLASSIFIED, VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.resources import COMMON_DATA_CLASSES, catalog, elements

if TYPE_CHECKING:
    from fhir_server.consent.labeling_run import LabelingRun

Steps = Callable[["LabelingRun"], Awaitable[None]]


class ContainedResources:
    """The contained resources of one resource, by number.

    ``fragments``: (path, text) of each reference in it that is a fragment; ``steps`` reads the labels of one, as of a row.
    """

    def __init__(self, resource: Mapping[str, Any], fragments: list[tuple[Path, str]], steps: Steps) -> None:
        self.container = resource
        self.bodies: list[Mapping[str, Any]] = list(resource.get("contained", ()))
        self._steps = steps
        self._numbers = {f"#{inner.get('id')}": number for number, inner in reversed(list(enumerate(self.bodies)))}
        self._runs: dict[int, LabelingRun] = {}
        self._open: set[int] = set()
        self._is_cyclic = False
        self.fragments = fragments

    def number(self, reference: Any) -> int | None:
        """The number of the contained resource that a fragment names; None for any other reference."""
        text = reference.get("reference") if isinstance(reference, dict) else reference
        return self._numbers.get(text) if isinstance(text, str) else None

    async def run(self, number: int, container: LabelingRun) -> LabelingRun | None:
        """The labeling of a contained resource; None if R4 does not know its type."""
        body = self.bodies[number]
        declared = catalog().get(str(body.get("resourceType")))
        if declared is None:
            return None
        if number not in self._runs:
            self._runs[number] = container.inner(declared, body)
            self._open.add(number)
            await self._steps(self._runs[number])
            self._open.discard(number)
        self._is_cyclic = self._is_cyclic or number in self._open
        return self._runs[number]

    async def source(self, number: int, container: LabelingRun) -> LabelSource | None:
        """What a contained resource lends to one that refers to it."""
        found = await self.run(number, container)
        if found is None:
            return None
        return LabelSource(VisibilityClass(found.data, frozenset(found.labels)), found.release, lambda: found.resource)

    async def runs(self, container: LabelingRun) -> list[LabelingRun | None]:
        """The labelings of all of them.  In a circle of references, which has no first one, each has the labels of all."""
        found = [await self.run(number, container) for number in range(len(self.bodies))]
        if self._is_cyclic:
            labels = set().union(*(inner.labels for inner in found if inner is not None))
            for inner in found:
                if inner is not None:
                    inner.labels |= labels
        return found

    def counting_for_whole(self, members: set[Path]) -> set[int]:
        """The numbers of those that say something of the whole resource: all but those that only ``members`` lead to."""
        named = [(path, number) for path, text in self.fragments if (number := self._numbers.get(text)) is not None]
        waiting = [number for path, number in named if path[0] != "contained" and path not in members]
        waiting += set(range(len(self.bodies))) - {number for _, number in named}
        found: set[int] = set()
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting += [inner for path, inner in named if path[:2] == ("contained", number)]
        return found


async def read_contained(run: LabelingRun) -> None:
    """Step 4: contained resources count for the whole, except members and the directory, and become parts with their references."""
    contained = run.contained
    if not contained.bodies or run.resource is not contained.container:
        return
    members = {location for _, location, _ in elements.located(run.resource, run.type.member_references)}
    whole = contained.counting_for_whole(members)
    for number, inner in enumerate(await contained.runs(run)):
        if inner is None:
            run.labels.add(UNCLASSIFIED)
            continue
        if number in whole and inner.data != "directory":
            run.labels |= (inner.labels & (CATEGORIES | {MC})) | security_labels.labels(inner.resource)
        run.release = max(run.release, inner.release)
        _label_parts(run, number, inner)


def _label_parts(run: LabelingRun, number: int, inner: LabelingRun) -> None:
    """Label a contained resource, its parts and the references to it."""
    labels = set(inner.labels)
    if inner.type.name != "Patient" and not set(inner.patients) <= set(run.patients):
        labels.add(MIXED)
    own = inner.data != run.data and inner.data not in COMMON_DATA_CLASSES
    for path in (("contained", number), *_references(run, number)):
        run.parts.add(path, labels)
        if own:
            run.parts.add_element(path, f"contained@{inner.data}")
    run.parts.add_inner(("contained", number), inner.parts)
    for name in sorted(redactable(run.labeler.policy, inner.data)):
        for member in (name, f"_{name}"):
            if member in inner.resource:
                run.parts.add_element(("contained", number, member), f"contained+{name}@{inner.data}.{name}" if own else name)


def label_fragments(run: LabelingRun) -> None:
    """Where all contained resources are withheld together, withhold the references to them as well."""
    for number in range(len(run.contained.bodies)):
        for path in _references(run, number):
            if path[0] != "contained":
                run.parts.follow(path, ("contained",))


def _references(run: LabelingRun, number: int) -> Iterator[Path]:
    """The paths to remove when a contained resource is hidden, so that no reference to it remains."""
    for path, text in run.contained.fragments:
        if run.contained.number(text) != number:
            continue
        if path[0] != "contained":
            yield elements.removal_path(run.type.name, path)
        else:
            container = str(run.contained.bodies[int(path[1])].get("resourceType"))
            yield (*path[:2], *elements.removal_path(container, path[2:]))
