"""Two servers with a Composition and a Group that name visible and hidden rows, and with profiles that writes must meet.

The Composition and the Group are the same on both servers; the rows that they name differ.  The profiles say which types a reference may
name, so each write with a reference is checked against them.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from fhir_server.packages.archive import Package
from fhir_server.packages.loading import Packages
from fhir_server.writing.indexing_steps import index_all
from tests.noninterference.comparison import Twins
from tests.noninterference.paired_server import BASE, MINUTE, NOW, SECOND, Ask, World, Write
from tests.noninterference.request_generator import Asker
from tests.noninterference.resource_factory import LOINC, Json, coded, ref
from tests.noninterference.write_requests import JSON_TYPE, text_of

SUMMARY, PEOPLE = "Composition/named-rows", "Group/named-people"
PROFILE: Final = "http://x.example/twins"
_CORE: Final = "http://hl7.org/fhir/StructureDefinition"


def profile(type: str, element: str, *targets: str, **demands: Any) -> Json:
    """A profile by which an element may refer to these types only."""
    kind = [{"code": "Reference", "targetProfile": [f"{_CORE}/{target}" for target in targets]}]
    elements = [{"id": type, "path": type}, {"id": f"{type}.{element}", "path": f"{type}.{element}", "type": kind, **demands}]
    return {
        "resourceType": "StructureDefinition", "id": f"twins-{type}", "url": f"{PROFILE}/{type}", "name": "Twins", "status": "active",
        "kind": "resource", "abstract": False, "type": type, "baseDefinition": f"{_CORE}/{type}", "derivation": "constraint",
        "differential": {"element": elements},
    }  # fmt: skip


REQUIRED: Final = (profile("Observation", "focus", "Observation", "Patient"), profile("Communication", "about", "Observation", "Condition"))
CLAIMED: Final = f"{PROFILE}/Observation"


def composition(patient: str, names: list[str]) -> Json:
    """One section for each row that is named, and one with all of them."""
    sections = [{"title": f"Part {number}", "entry": [{"reference": name}]} for number, name in enumerate(names)]
    everything = {"title": "All", "entry": [{"reference": name} for name in names]}
    return {
        "resourceType": "Composition", "status": "final", "type": coded(LOINC, "34133-9"), "date": "2026-03-01", "title": "Summary",
        "subject": ref("Patient", patient), "author": [ref("Practitioner", "dr-one")], "section": [everything, *sections],
    }  # fmt: skip


def group(names: list[str]) -> Json:
    """A Group of patients, some of whom the caller may not know of."""
    members = [{"entity": {"reference": name}} for name in names if name.startswith("Patient/")]
    return {"resourceType": "Group", "type": "person", "actual": True, "active": True, "quantity": len(members), "member": members}


class CollectionAsker(Asker):
    """Asks for what the Composition and the Group name, and writes what the profiles are about."""

    def collected(self) -> Ask:
        name = self._name()
        made: Ask = self._pick(
            Ask.get("collected", SUMMARY),
            Ask.get("collected", f"{SUMMARY}/$document"),
            Ask.get("collected", "Composition", [("entry", name)]),
            Ask.get("collected", "Composition", [("_id", "named-rows"), ("_include", "Composition:entry")]),
            Ask.get("collected", name.partition("/")[0], [("_has:Composition:entry:status", "final")]),
            Ask.get("collected", PEOPLE),
            Ask.get("collected", "Group", [("member", name)]),
            Ask.get("collected", "Group", [("_id", "named-people"), ("_include", "Group:member")]),
            Ask.get("collected", f"{PEOPLE}/$everything"),
            Ask.get("collected", f"{SUMMARY}/_history"),
        )
        return made

    def profiled(self) -> Ask:
        """Create, update or validate a resource that must meet a profile and refers to a row that may be hidden."""
        row = self._draft()
        name = self._pick(*self._probes.hidden_ids, self._name())
        row |= {("about" if row["resourceType"] == "Communication" else "focus"): [{"reference": name}]}
        if row["resourceType"] == "Observation":
            row |= {"meta": {"profile": [CLAIMED]}}
        type = row["resourceType"]
        if self._random.random() < 0.3:
            return Ask("profiled", "POST", f"{type}/$validate", "", (JSON_TYPE,), text_of(row))
        return Ask("profiled", "POST", type, "", (JSON_TYPE,), text_of(row))

    def draw(self, number: int) -> list[Ask]:
        """Random requests, of which two thirds are about collections and profiles."""
        drawn = super().draw(number // 3)
        return [*drawn, *(self._pick(self.collected, self.profiled)() for _ in range(number - len(drawn)))]


class CollectionTwins(Twins):
    """Two servers that differ in hidden data only and have the same Composition, Group and required profiles."""

    asker: ClassVar[Any] = CollectionAsker
    most_pages = 300

    async def open(self, without: frozenset[str] = frozenset(), lifetime: int = 60 * MINUTE) -> None:
        await super().open(without, lifetime)
        patient = self.case.caller.patient or "teen"
        named = sorted({write.name for write in (*self.case.hidden(), *self.case.shown)} | {f"Patient/{patient}"})
        for world in self.worlds:
            await require_profiles(world)
            await world.write(Write(NOW - 2 * MINUTE, "Composition", "named-rows", composition(patient, named)))
            await world.write(Write(NOW - 2 * MINUTE, "Group", "named-people", group([*named, "Patient/child", "Patient/adult"])))


async def require_profiles(world: World) -> None:
    """Add the package with the profiles, and require them of every write of their types."""
    texts = {f"package/StructureDefinition-{one['type']}.json": json.dumps(one).encode() for one in REQUIRED}
    parts = world.parts
    report = await Packages(parts.store, parts.labeler, BASE, lambda: NOW - SECOND).add(Package("x.twins", "1.0.0", {}, texts))
    assert not report.refused, report
    await index_all(parts.store, parts.labeler, BASE, lambda: NOW - SECOND)
    parts.service.profiles._required = {one["type"]: (one["url"],) for one in REQUIRED}
