"""A small set of profiles, one for each kind of rule, with a resource that meets it and resources with one defect each."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.packages.archive import Package

BASE: Final = "http://x.example/fhir"
CORE: Final = "http://hl7.org/fhir/StructureDefinition"
SYSTEM: Final = "http://x.example/fhir/CodeSystem/colours"
VALUE_SET: Final = "http://x.example/fhir/ValueSet/warm"
LOINC: Final = "http://loinc.org"

Json = dict[str, Any]


@dataclass(frozen=True)
class Defect:
    """A change of the valid resource, and the issue type code and the place of the one error that it causes."""

    changes: Mapping[str, Any]
    code: str
    place: str


@dataclass(frozen=True)
class Case:
    """A profile and a resource that meets it.  ``changes`` of a defect replace members; None removes one."""

    profile: Json
    valid: Json
    defects: tuple[Defect, ...]
    also_valid: tuple[Mapping[str, Any], ...] = ()

    @property
    def url(self) -> str:
        return str(self.profile["url"])

    def resource(self, changes: Mapping[str, Any] | None = None) -> Json:
        """The valid resource with these changes, claiming the profile."""
        made = {**copy.deepcopy(self.valid), "meta": {"profile": [self.url]}, **(changes or {})}
        return {name: value for name, value in made.items() if value is not None}


def structure(id: str, type: str, *elements: Json, differential: bool = False, base: str = "", **more: Any) -> Json:
    """A StructureDefinition that constrains a type by these elements; their paths follow from their ids."""
    rows = list(elements) if elements[0]["id"] == type else [{"id": type}, *elements]
    rows = [{"path": ".".join(step.partition(":")[0] for step in row["id"].split(".")), **_sliced(row)} for row in rows]
    return {
        "resourceType": "StructureDefinition", "id": id, "url": f"{BASE}/StructureDefinition/{id}", "name": id.title().replace("-", ""),
        "version": "1.0.0", "status": "active", "kind": "complex-type" if type == "Extension" else "resource", "abstract": False,
        "type": type, "derivation": "constraint", "baseDefinition": base or f"{CORE}/{type}",
        ("differential" if differential else "snapshot"): {"element": [row if differential else _whole(row) for row in rows]}, **more,
    }  # fmt: skip


def _sliced(row: Json) -> Json:
    name = row["id"].rpartition(".")[2].partition(":")[2]
    return {**row, "sliceName": name} if name else row


def _whole(row: Json) -> Json:
    """A row with what every element of a snapshot has."""
    row = {"definition": "x", "min": 0, "max": "*", "isModifier": False, "isSummary": False, **row}
    return {"base": {"path": row["path"], "min": 0, "max": "*"}, **row}


def concept(code: str, system: str = LOINC) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def observation(**more: Any) -> Json:
    return {"resourceType": "Observation", "status": "final", "code": concept("8867-4"), **more}


def patient(**more: Any) -> Json:
    return {"resourceType": "Patient", **more}


def component(code: str, **more: Any) -> Json:
    return {"code": concept(code), **more}


def discriminated(path: str, kind: str, by: str, rules: str = "open", **more: Any) -> Json:
    return {"id": path, "slicing": {"discriminator": [{"type": kind, "path": by}], "rules": rules, **more}}


def rules(key: str, expression: str, severity: str = "error") -> list[Json]:
    return [{"key": key, "severity": severity, "human": f"the rule {key}", "expression": expression}]


def of(code: str, **more: Any) -> list[Json]:
    return [{"code": code, **more}]


def package(*definitions: Json, name: str = "x.profiles", version: str = "1.0.0") -> Package:
    """A package of these definitions."""
    texts = {f"package/{one['resourceType']}-{one['id']}.json": json.dumps(one).encode() for one in definitions}
    return Package(name, version, {}, texts)
