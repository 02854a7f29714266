"""The seed bundles as Python values, and the patients of each resource."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fhir_server import jsontext

ROOT = Path(__file__).parents[2]
BUNDLES = sorted((ROOT / "seed_bundles").glob("*.json"))


def bundle(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = jsontext.parse(path.read_bytes())
    return value


def rows() -> dict[str, dict[str, Any]]:
    """Return every seed resource by ``Type/id``, in load order."""
    resources = (entry["resource"] for path in BUNDLES for entry in bundle(path)["entry"])
    return {f"{resource['resourceType']}/{resource['id']}": resource for resource in resources}


def references(value: Any) -> Iterator[str]:
    """Yield the literal references in a resource, including the URLs of attachments."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        if "contentType" in value and "url" in value:
            yield value["url"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def patients(row: dict[str, Any], seeds: dict[str, dict[str, Any]]) -> set[str]:
    """Return the ids of the patients that a resource is about.  Performers and authors are not included."""
    kind = row["resourceType"]
    if kind == "Patient":
        return {row["id"]}
    if kind == "Provenance":
        return {patient for target in row["target"] for patient in patients(seeds[target["reference"]], seeds)}
    if kind == "Appointment":
        about = [participant.get("actor", {}) for participant in row["participant"]]
    else:
        named = [row.get(name, []) for name in ("subject", "patient", "beneficiary", "securityContext")]
        about = [one for value in named for one in (value if isinstance(value, list) else [value])]
    return {one["reference"].removeprefix("Patient/") for one in about if one.get("reference", "").startswith("Patient/")}
