"""The searches that US Core demands of a server, with values taken from the resources that they must find.

They are those of the CapabilityStatement ``us-core-server``: single parameters, and combinations of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

Json = dict[str, Any]
_COMBINATION: Final = "http://hl7.org/fhir/StructureDefinition/capabilitystatement-search-parameter-combination"
_NO_VALUE: Final = {"date": "lt1850-01-01", "token": "http://x.example|none", "reference": "none", "string": "xyzxyz"}


class Search(NamedTuple):
    """A search that must find one resource, and one with another value of its last parameter, which must not."""

    query: str
    other: str


def demanded(statement: Json) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each (type, parameters) that the CapabilityStatement names, whether servers shall or should have it."""
    for resource in statement["rest"][0]["resource"]:
        for one in resource.get("searchParam", ()):
            yield resource["type"], (one["name"],)
        for one in resource.get("extension", ()):
            if one["url"] == _COMBINATION:
                yield resource["type"], tuple(part["valueString"] for part in one["extension"] if part["url"] in ("required", "optional"))


def search_for(row: Json, names: tuple[str, ...], parameters: Mapping[tuple[str, str], Json]) -> Search | None:
    """The search by these parameters that must find the resource; None if it has no value of one of them."""
    found = []
    for name in names:
        parameter = parameters.get((row["resourceType"], name), {"type": "token", "expression": name})
        values = [text for value in _values(row, name, parameter) if (text := _text(value, parameter["type"]))]
        if not values:
            return None
        found.append((name, values[0], _NO_VALUE[parameter["type"]]))
    parts = [f"{name}={quote(value, safe='')}" for name, value, _ in found]
    name, _, none = found[-1]
    return Search("&".join(parts), "&".join([*parts[:-1], f"{name}={quote(none, safe='')}"]))


def _values(row: Json, name: str, parameter: Json) -> Iterator[Any]:
    if name in ("_id", "_lastUpdated"):
        yield row["id"] if name == "_id" else row["meta"]["lastUpdated"]
        return
    for path in parameter["expression"].split("|"):
        steps = re.sub(r"\.(where|as)\(.*| as \w+|[()]", "", path.strip()).split(".")
        if steps[0] == row["resourceType"]:
            yield from _walk(row, steps[1:])
    extension = re.search(r"extension\.where\(url = '([^']+)'\)", parameter["expression"])
    for one in row.get("extension", ()) if extension else ():
        if extension and one["url"] == extension[1]:
            yield from (inner for inner in _leaves(one) if inner != one["url"])


def _walk(value: Any, steps: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _walk(one, steps)
    elif not steps:
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == steps[0] or (key.startswith(steps[0]) and key[len(steps[0])].isupper() and key[len(steps[0]) :] in _CHOICES):
                yield from _walk(inner, steps[1:])


_CHOICES: Final = ("DateTime", "Period", "Date", "Reference", "CodeableConcept", "Instant")


def _leaves(extension: Json) -> Iterator[Any]:
    for name, value in extension.items():
        if name.startswith("value"):
            yield value
    for one in extension.get("extension", ()):
        if one["url"] in ("ombCategory", "text"):
            yield from _leaves(one)


def _text(value: Any, kind: str) -> str:
    """A value as a search has it; "" without one."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    value = value["coding"][0] if "coding" in value else value
    if kind == "date":
        return f"ge{value['start']}" if "start" in value else ""
    if kind == "string":
        return str(value.get("family") or value.get("text") or value.get("display") or value.get("city") or "")
    code = value.get("reference") or value.get("code") or value.get("value", "")
    return f"{value['system']}|{code}" if kind == "token" and "system" in value else str(code)


def patient_of(row: Json) -> str:
    """The id of the patient whom a resource is about; "" without one."""
    about: Json = next((row[name] for name in ("subject", "patient", "beneficiary") if name in row), {})
    own = row["id"] if row["resourceType"] == "Patient" else ""
    return own or str(about.get("reference", "")).removeprefix("Patient/")
