"""Labels from the resources inside a stored Bundle (step 4 of docs/policy.md, "How a resource is labeled").

A stored Bundle, such as a document, is served as a whole or not at all.  So it has the labels of everything in it: each entry is
labeled as a row would be, with the references between the entries, and its labels and those of its parts count for the Bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fhir_server.consent.label_sources import LabelSource
from fhir_server.consent.labeling_run import LabelingRun
from fhir_server.consent.visibility_classes import UNCLASSIFIED, UNRESOLVED, VisibilityClass
from fhir_server.resources import catalog


async def read_entries(run: LabelingRun) -> None:
    """Step 4: the resources in a Bundle or in Parameters."""
    if run.type.name in ("Bundle", "Parameters"):
        await _Entries(run).read()


class _Entries:
    """The resources inside a resource, by ``Type/id``; one without an id gets one."""

    def __init__(self, run: LabelingRun) -> None:
        self._run = run
        found = list(_resources(run.resource))
        named = [(url, f"{inner.get('resourceType')}/{inner.get('id') or f'entry-{number}'}") for number, (url, inner) in enumerate(found)]
        links = {url: name for url, name in named if url}
        self._bodies = {name: _linked(inner, links) for (_, name), (_, inner) in zip(named, found, strict=True)}
        self._sources: dict[str, LabelSource] = {}
        self._open: set[str] = set()

    async def read(self) -> None:
        for name in self._bodies:
            await self._label(name)

    async def _label(self, name: str) -> LabelSource:
        """Label an entry, once; its labels count for the whole."""
        if name in self._sources:
            return self._sources[name]
        run, type, body = self._run, name.partition("/")[0], self._bodies[name]
        if type not in catalog():
            run.labels.add(UNCLASSIFIED)
            return self._keep(name, VisibilityClass("other", frozenset({UNCLASSIFIED, UNRESOLVED})), 0)
        self._open.add(name)
        found = await run.labeler.label(type, body, self._look_up)
        self._open.discard(name)
        run.labels |= found.key.labels.union(*(key.labels for _, key in found.labeled_elements))
        run.release = max(run.release, found.release_at)
        run.label_sources |= set(found.label_sources) - self._bodies.keys()
        return self._keep(name, found.key, found.release_at)

    def _keep(self, name: str, key: VisibilityClass, release_at: int) -> LabelSource:
        self._sources[name] = LabelSource(key, release_at, lambda: self._bodies[name])
        return self._sources[name]

    async def _look_up(self, type: str, id: str) -> LabelSource | None:
        name = f"{type}/{id}"
        if name in self._open:  # a circle: what the entry lends is counted for the whole when it is read
            return LabelSource(VisibilityClass(catalog()[type].data_class), 0, lambda: self._bodies[name])
        return await self._label(name) if name in self._bodies else await self._run.lookup(type, id)


def _resources(node: Any, url: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(fullUrl, resource) of the resources inside a resource, those inside them excepted."""
    if isinstance(node, list):
        for item in node:
            yield from _resources(item, url, depth)
    elif isinstance(node, dict):
        if depth and isinstance(node.get("resourceType"), str):
            yield url, node
            return
        full_url = node.get("fullUrl")
        for name, value in node.items():
            if name != "contained" and isinstance(value, dict | list):
                yield from _resources(value, full_url if isinstance(full_url, str) else "", depth + 1)


def _linked(node: Any, links: Mapping[str, str]) -> Any:
    """The same with each reference to the fullUrl of an entry made literal."""
    if isinstance(node, list):
        return [_linked(item, links) for item in node]
    if isinstance(node, dict):
        return {
            name: links.get(value, value) if name == "reference" and isinstance(value, str) else _linked(value, links)
            for name, value in node.items()
        }
    return node
