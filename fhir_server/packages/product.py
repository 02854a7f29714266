"""The packages that come with the product: HL7's definitions of R4, and the server's own implementation guide."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fhir_server.package_data import data_folder
from fhir_server.packages.archive import Package, package_of_manifest, read_archive
from fhir_server.resources import published
from fhir_server.terminology.shipped import r4_resources
from fhir_server.terminology.sources import Kind

R4: Final = "hl7.fhir.r4.core"
GUIDE: Final = "fhir-server.ig"
NAMES: Final = (GUIDE, R4)
_TERMINOLOGY: Final[tuple[Kind, ...]] = ("CodeSystem", "ValueSet", "ConceptMap")
_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9.-]")
_FOLDERS: Final = ("guide", "profiles", "codesystems", "valuesets")


def product_package(name: str, operations: Mapping[str, dict[str, Any]]) -> Package:
    """The package of the product with this name.

    ``operations``: the OperationDefinitions of the operations that the server has, which its guide contains.
    """
    return _r4() if name == R4 else guide(data_folder("ig"), operations)


def _r4() -> Package:
    """HL7's definitions of R4: those that are packed as published, and the code systems, value sets and concept maps by which the server
    answers, with what says something of codes.
    """
    packed = read_archive(published.FILE)
    definitions = dict(packed.definitions)
    for kind in _TERMINOLOGY:
        for resource in r4_resources(kind):
            named = {"resourceType": kind, "id": _id(resource["url"]), **resource}
            definitions[f"package/{kind}-{named['id']}.json"] = json.dumps(named, ensure_ascii=False).encode()
    return replace(packed, definitions=definitions)


def _id(url: str) -> str:
    """The id of a definition, which follows from its URL, as HL7's do."""
    return _NOT_IN_IDS.sub("-", url.rpartition("/")[2])[-64:]


def guide(folder: Path, operations: Mapping[str, dict[str, Any]]) -> Package:
    """The implementation guide in a folder such as ``ig/``, with an ImplementationGuide that lists what it has."""
    manifest = (folder / "package.json").read_bytes()
    resources = [json.loads(file.read_bytes()) for part in _FOLDERS for file in sorted((folder / part).glob("*.json"))]
    resources += operations.values()
    examples = [json.loads(file.read_bytes()) for file in sorted((folder / "examples").glob("*.json"))]
    resources.append(_implementation_guide(json.loads(manifest), resources, examples))
    definitions = {f"package/{one['resourceType']}-{one['id']}.json": json.dumps(one, ensure_ascii=False).encode() for one in resources}
    return package_of_manifest(manifest, definitions, str(folder))


def _implementation_guide(manifest: dict[str, Any], resources: list[dict[str, Any]], examples: list[dict[str, Any]]) -> dict[str, Any]:
    """The ImplementationGuide of the package (http://hl7.org/fhir/R4/implementationguide.html).

    Examples are named by their ids alone, because they are in the package and not in the store.
    """
    listed = [{"reference": {"reference": f"{one['resourceType']}/{one['id']}"}, "exampleBoolean": False} for one in resources]
    shown = [
        {
            "reference": {"display": f"{one['resourceType']} {one['id']}"},
            **({"exampleCanonical": one["meta"]["profile"][0]} if one.get("meta", {}).get("profile") else {"exampleBoolean": True}),
        }
        for one in examples
    ]
    return {
        "resourceType": "ImplementationGuide",
        "id": manifest["name"],
        "url": f"{manifest['canonical']}/ImplementationGuide/{manifest['name']}",
        "version": manifest["version"],
        "name": "FhirServer",
        "title": manifest["title"],
        "status": "active",
        "packageId": manifest["name"],
        "fhirVersion": manifest["fhirVersions"],
        "definition": {"resource": [*listed, *shown]},
    }
