"""A CodeSystem that can be asked: its concepts by code, their hierarchy and their properties (http://hl7.org/fhir/R4/codesystem.html)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server import budget

Json = Mapping[str, Any]

_CONCEPT_PROPERTIES: Final = "http://hl7.org/fhir/concept-properties#"
_NO_SUBSUMPTION: Final = frozenset({"grouped-by", "part-of", "classified-with"})
_STEP: Final = 200  # concepts between which others may go on
_RETIRED: Final = frozenset({"retired", "inactive"})
_PARENTS: Final = frozenset({"parent", "subsumedBy"})


@dataclass(slots=True, eq=False)
class Concept:
    """A concept.  ``parents`` and ``children`` are codes; ``properties`` the JSON of ``CodeSystem.concept.property``."""

    code: str
    display: str = ""
    definition: str = ""
    designations: tuple[Json, ...] = ()
    properties: tuple[Json, ...] = ()
    parents: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    is_abstract: bool = False
    is_inactive: bool = False

    def values(self, property: str) -> list[str]:
        """The values of a property as texts; those of a Coding are its codes."""
        return [text_of(value) for one in self.properties if one.get("code") == property for value in (value_of(one),) if value is not None]


@dataclass(slots=True, eq=False)
class CodeSystem:
    """A code system by its codes, in order.

    ``is_complete``  whether it holds all codes that it defines, so that what is missing is no code
    ``subsumes``     whether its hierarchy means that a parent subsumes its children
    ``property_types``  code of a property -> its type
    """

    url: str
    version: str
    name: str
    is_complete: bool
    subsumes: bool
    concepts: Mapping[str, Concept]
    property_types: Mapping[str, str]
    property_texts: Mapping[str, str]
    folded: Mapping[str, str]

    def find(self, code: str) -> Concept | None:
        """The concept of a code, whose case counts if the code system says so."""
        found = self.concepts.get(code)
        return found if found is not None or not self.folded else self.concepts.get(self.folded.get(code.casefold(), ""))

    def ancestors(self, code: str) -> frozenset[str]:
        """The codes that subsume a concept, itself among them."""
        return self._reach(code, lambda concept: concept.parents)

    def descendants(self, code: str) -> frozenset[str]:
        """The codes that a concept subsumes, itself among them."""
        return self._reach(code, lambda concept: concept.children)

    def _reach(self, code: str, following: Any) -> frozenset[str]:
        found, waiting = {code}, [code]
        while waiting:
            concept = self.concepts.get(waiting.pop())
            new = [other for other in following(concept) if other not in found] if concept else []
            found.update(new)
            waiting += new
        return frozenset(found)


async def compiled(resource: Json) -> CodeSystem:
    """The code system of a CodeSystem resource.  Lets others go on meanwhile."""
    kinds = {str(one.get("code")): str(one.get("uri", "")).removeprefix(_CONCEPT_PROPERTIES) for one in resource.get("property", ())}
    concepts: dict[str, Concept] = {}
    links: dict[tuple[str, str], None] = {}  # (child, parent), each once
    waiting: list[tuple[Json, str]] = [(raw, "") for raw in reversed(resource.get("concept", ()))]
    while waiting:
        if len(concepts) % _STEP == 0:
            await budget.give_way()
        raw, parent = waiting.pop()
        concept = _concept(raw, kinds)
        concepts[concept.code] = concept
        if parent:
            links[concept.code, parent] = None
        links.update(dict.fromkeys(_links(concept, kinds)))
        waiting += [(child, concept.code) for child in reversed(raw.get("concept", ()))]
    for number, (child, parent) in enumerate(links):
        if number % _STEP == 0:
            await budget.give_way()
        if child in concepts and parent in concepts and child != parent:
            concepts[child].parents.append(parent)
            concepts[parent].children.append(child)
    return CodeSystem(
        str(resource.get("url", "")),
        str(resource.get("version", "")),
        str(resource.get("name") or resource.get("title") or resource.get("url") or "code system"),
        resource.get("content") == "complete",
        resource.get("hierarchyMeaning") not in _NO_SUBSUMPTION,
        concepts,
        {str(one.get("code")): str(one.get("type", "")) for one in resource.get("property", ())},
        {str(one.get("code")): str(one.get("description", "")) for one in resource.get("property", ())},
        {code.casefold(): code for code in concepts} if resource.get("caseSensitive") is False else {},
    )


def _concept(raw: Json, kinds: Mapping[str, str]) -> Concept:
    concept = Concept(
        str(raw.get("code")),
        str(raw.get("display", "")),
        str(raw.get("definition", "")),
        tuple(raw.get("designation", ())),
        tuple(raw.get("property", ())),
    )
    for one in concept.properties:
        name, value = str(one.get("code")), value_of(one)
        kind = kinds.get(name) or name
        concept.is_abstract |= value is True and kind in ("notSelectable", "abstract")
        concept.is_inactive |= (kind == "inactive" and value is True) or (kind == "status" and value in _RETIRED)
    return concept


def _links(concept: Concept, kinds: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """(child, parent) of the properties that name parents or children."""
    for one in concept.properties:
        name = str(one.get("code"))
        kind = kinds.get(name) or name
        if kind in _PARENTS or name in _PARENTS:
            yield concept.code, text_of(value_of(one))
        elif "child" in (kind, name):
            yield text_of(value_of(one)), concept.code


def value_of(holder: Json) -> Any:
    """The ``value[x]`` of an object; None without one."""
    return next((value for name, value in holder.items() if name.startswith("value")), None)


def text_of(value: Any) -> str:
    """A value as a filter compares it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.get("code", "")) if isinstance(value, dict) else str(value)
