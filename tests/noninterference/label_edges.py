"""The references through which a row inherits labels, one by one: a row that refers to a sensitive row, and its control.

:data:`EDGES` is the oracle (docs/policy.md, "How a resource is labeled"): the server's declarations are never asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from fhir_server.resources import ResourceType
from tests.noninterference.label_graphs import DIRECTORY, REFERENCES, SENSITIVE, ordinary_row, refer
from tests.noninterference.oracle import FACTS
from tests.noninterference.paired_server import SECOND, Ask, Caller, World, Write
from tests.noninterference.resource_factory import ACT, Json

PATIENT = "teen"
PARENT = Caller("parent of a teenager", "PT", PATIENT, "RelatedPerson/parent-of-teen", "parent")
BACKEND = Caller("limited backend", "BE", "", client="limited", scope="system/*.cruds")


class Edge(NamedTuple):
    """Rows of type ``heir`` inherit through the element ``path`` from rows of type ``source``."""

    heir: str
    path: str
    source: str

    def __str__(self) -> str:
        return f"{self.heir}.{self.path.replace('[]', '')} to {self.source}"


# References whose target labels only the reference itself, and what sums up the row: members, diagnoses of a visit.
_MEMBERS = {
    ("Encounter", "reasonReference[]"), ("Encounter", "diagnosis.condition"), ("ServiceRequest", "specimen[]"),
    ("Observation", "hasMember[]"), ("Observation", "derivedFrom[]"), ("DiagnosticReport", "result[]"),
    ("Composition", "section.entry[]"), ("CareTeam", "participant.member"),
}  # fmt: skip
EDGES = tuple(
    Edge(heir, path, source)
    for heir, paths in REFERENCES.items()
    if heir not in DIRECTORY
    for path, sources in paths.items()
    if (heir, path) not in _MEMBERS
    for source in sources
)
_CONTAINABLE = frozenset({"Encounter", "ServiceRequest", "Specimen", "EpisodeOfCare", "Appointment"})


class Chain(NamedTuple):
    """Two edges, one after the other.  The row between them is stored or contained."""

    first: Edge
    second: Edge

    def __str__(self) -> str:
        return f"{self.first}, {self.second}"


CHAINS = tuple(Chain(first, second) for first in EDGES if first.source in _CONTAINABLE for second in EDGES if second.heir == first.source)


@dataclass
class Records:
    """A server on which heirs and sources are stored, each under new ids."""

    world: World = field(default_factory=lambda: World("memory:", 1))
    at: int = FACTS[-1].at
    _ids: int = 0

    async def open(self) -> None:
        await self.world.open()
        for fact in FACTS:
            await self.world.write(fact)
        self.tokens = [await self.world.token(caller) for caller in (BACKEND, PARENT)]

    async def store(self, resource: Json) -> str:
        """Store a resource under a new id and return its ``Type/id``."""
        self._ids += 1
        self.at += SECOND
        await self.world.write(Write(self.at, resource["resourceType"], f"e{self._ids}", resource))
        return f"{resource['resourceType']}/e{self._ids}"

    async def seen(self, name: str) -> list[bytes | None]:
        """Return what the limited backend and the parent read under this name; None for 404."""
        answers = [await self.world.ask(Ask.get("read", name), token) for token in self.tokens]
        assert {answer.status for answer in answers} <= {200, 404}
        return [answer.body if answer.status == 200 else None for answer in answers]

    async def of_edge(self, edge: Edge, sensitive: bool) -> list[bytes | None]:
        """Store a source and its heir; return what the callers read of the heir."""
        source = await self.store(source_row(edge.source, sensitive))
        return await self.seen(await self.store(heir_row(edge, source)))

    async def of_chain(self, chain: Chain, sensitive: bool, contained: bool) -> list[bytes | None]:
        """The same with a row between the two, stored or contained in the heir."""
        source = await self.store(source_row(chain.second.source, sensitive))
        between = heir_row(chain.second, source)
        if not contained:
            return await self.seen(await self.store(heir_row(chain.first, await self.store(between))))
        row = heir_row(chain.first, "#between")
        row["contained"] = [{**between, "id": "between"}]
        return await self.seen(await self.store(row))


def source_row(type: str, sensitive: bool, patient: str = PATIENT) -> Json:
    row = ordinary_row(type, patient)
    if sensitive and type in SENSITIVE:
        return row | SENSITIVE[type]
    return row | ({"meta": {"security": [{"system": ACT, "code": "HIV"}]}} if sensitive else {})


def heir_row(edge: Edge, source: str, patient: str = PATIENT) -> Json:
    row = ordinary_row(edge.heir, patient)
    refer(row, edge.path, source)
    return row


def without_edge(catalog: Mapping[str, ResourceType], edge: Edge) -> dict[str, ResourceType]:
    """Return the declarations of the resource types without one path from which rows of a type inherit."""
    path, declared = edge.path.replace("[]", ""), catalog[edge.heir]
    lists = [one.name for one in fields(declared) if one.name in ("inherits_labels_from", "departments", "depends_on", "member_references")]
    kept = {name: tuple(each for each in getattr(declared, name) if each != path) for name in lists}
    return {**catalog, edge.heir: replace(declared, **kept)}
