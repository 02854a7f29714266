"""``fhir-server codes report``: the unknown codes of a store, by the number of resources that are withheld as unclassified."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server.consent import element_reading
from fhir_server.consent.code_reading import read
from fhir_server.consent.code_systems import normalize_code
from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import UNCLASSIFIED, VisibilityClass
from fhir_server.jsontext import Path, parse
from fhir_server.resources import catalog
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Snapshot, Store

_PAGE: Final = 500
_MAX_TEXT: Final = 80  # characters of a display or text
# Systems of FHIR's own codes, such as statuses and categories: they say how a resource is handled.
_HANDLING: Final = ("http://terminology.hl7.org/CodeSystem/", "http://hl7.org/fhir/", "urn:ietf:", "http://unitsofmeasure.org")
_NO_CONCEPT: Final = frozenset({"note", "dosage", "dosageInstruction", "meta"})  # elements whose items may have a text alone
_HEALTH: Final = ("/service-type", "/service-category", "/v3-RoleCode", "/v3-ActCode", "/v2-0276", "/sid/")


@dataclass(frozen=True, slots=True)
class UnknownCode:
    """A code that no list knows, as it is written; a text without a code has "" as system and code."""

    system: str
    code: str
    display: str


@dataclass(slots=True)
class UnclassifiedReport:
    """``withheld`` counts the resources in which a code stands and that are unclassified, wholly or in the part with the code;
    ``without_code`` counts, by type, unclassified resources without an unknown code; ``examined`` counts all.
    """

    withheld: Counter[UnknownCode] = field(default_factory=Counter)
    without_code: Counter[str] = field(default_factory=Counter)
    examined: int = 0


async def unclassified_codes(store: Store, codes: SensitivityCodes) -> UnclassifiedReport:
    """Read the current version of every resource by the labels that it has now, and the codes by the lists in force.

    The codes of a department count for the visits that name it: a directory resource has no labels of its own.
    """
    report = UnclassifiedReport()
    departments: dict[str, set[UnknownCode]] = {}
    async with store.snapshot() as snapshot:
        names = await snapshot.classes()
        unclassified = {number for number, name in enumerate(names) if UNCLASSIFIED in VisibilityClass.parse(name).labels}
        for type in sorted(DEPARTMENTS):
            async for row in _rows(snapshot, type, len(names)):
                departments[f"{type}/{row.id}"] = set(_unknown(parse(row.body), codes))
        for type in sorted(catalog()):
            async for row in _rows(snapshot, type, len(names)):
                _count(report, row, unclassified, codes, departments)
    return report


async def _rows(snapshot: Snapshot, type: str, classes: int) -> AsyncIterator[Row]:
    visibility = Visibility.unrestricted(classes)
    after = None
    while True:
        page = await snapshot.find(type, EVERYTHING, visibility, limit=_PAGE, after=after)
        for row in page.rows:
            yield row
        after = page.next
        if after is None:
            return


def _count(
    report: UnclassifiedReport, row: Row, unclassified: set[int], codes: SensitivityCodes, departments: Mapping[str, set[UnknownCode]]
) -> None:
    report.examined += 1
    parts = [()] if row.class_id in unclassified else [part.path for part in row.labeled_elements if part.class_id in unclassified]
    if not parts:
        return
    body = parse(row.body)
    found = {unknown for path in parts for unknown in _unknown(_at(body, path), codes)}
    if parts == [()]:
        targets = ("/".join(mention.target) for mention in element_reading.read_mentions(body).mentions if mention.target)
        found |= {unknown for target in targets for unknown in departments.get(target, ())}
    report.withheld.update(found)
    if not found:
        report.without_code[row.type] += 1


def _at(node: Any, path: Path) -> Any:
    for step in path:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def _unknown(node: Any, codes: SensitivityCodes) -> Iterator[UnknownCode]:
    """The codes under a node that no list knows."""
    if isinstance(node, list):
        for item in node:
            yield from _unknown(item, codes)
    elif isinstance(node, dict):
        if isinstance(node.get("coding"), list) or (isinstance(node.get("code"), str) and isinstance(node.get("system"), str)):
            yield from _unknown_of(node, codes)
        elif node.keys() == {"text"} and isinstance(node["text"], str):
            yield UnknownCode("", "", node["text"][:_MAX_TEXT])
        else:
            for name, value in node.items():
                if name not in _NO_CONCEPT:
                    yield from _unknown(value, codes)


def _unknown_of(concept: Mapping[str, Any], codes: SensitivityCodes) -> Iterator[UnknownCode]:
    reading = read(codes, concept)
    if reading.classified or reading.neutral or reading.labels:
        return
    codings = concept.get("coding", [concept])
    for coding in codings:
        if not isinstance(coding, dict):
            continue
        system, code = str(coding.get("system", "")), str(coding.get("code", ""))
        if code and not _is_handling(normalize_code(system, code)[0]):
            yield UnknownCode(system, code, str(coding.get("display") or concept.get("text") or "")[:_MAX_TEXT])
    if not any(isinstance(coding, dict) and coding.get("code") for coding in codings) and isinstance(concept.get("text"), str):
        yield UnknownCode("", "", concept["text"][:_MAX_TEXT])


def _is_handling(system: str) -> bool:
    return system.startswith(_HANDLING) and not any(name in system for name in _HEALTH)
