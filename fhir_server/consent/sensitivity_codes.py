"""The code book: what a coding tells about sensitivity.

Read once from the ValueSets of ``ig/valuesets``: ``sensitive-*`` and ``department-*`` give labels, ``*-second-signal``
labels that count only beside another one, ``ordinary-*`` what is known to be harmless.  A code in no list is
*unclassified*, which is not harmless.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fhir_server.consent.visibility_classes import CATEGORIES
from fhir_server.package_data import data_folder

ICD: Final = "http://hl7.org/fhir/sid/icd-10-cm"
SNOMED: Final = "http://snomed.info/sct"
CVX: Final = "http://hl7.org/fhir/sid/cvx"
KEYWORD: Final = "https://fhir-server.example/ig/StructureDefinition/keyword"
ALIASES: Final = {
    "urn:oid:2.16.840.1.113883.6.1": "http://loinc.org",
    "urn:oid:2.16.840.1.113883.6.96": SNOMED,
    "urn:oid:2.16.840.1.113883.6.88": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "urn:oid:2.16.840.1.113883.6.90": ICD,
    "urn:oid:2.16.840.1.113883.6.3": ICD,
    "urn:oid:2.16.840.1.113883.6.103": "http://hl7.org/fhir/sid/icd-9-cm",
    "urn:oid:2.16.840.1.113883.12.292": CVX,
    "urn:oid:2.16.840.1.113883.6.101": "http://nucc.org/provider-taxonomy",
    "urn:oid:2.16.840.1.113883.5.111": "http://terminology.hl7.org/CodeSystem/v3-RoleCode",
    "http://hl7.org/fhir/sid/icd-10": ICD,
    "http://hl7.org/fhir/v3/RoleCode": "http://terminology.hl7.org/CodeSystem/v3-RoleCode",
    "http://hl7.org/fhir/service-type": "http://terminology.hl7.org/CodeSystem/service-type",
    "http://hl7.org/fhir/service-category": "http://terminology.hl7.org/CodeSystem/service-category",
    "http://hl7.org/fhir/v2/0276": "http://terminology.hl7.org/CodeSystem/v2-0276",
    "http://www.cdc.gov/vaccines/cvx": CVX,
    "https://loinc.org": "http://loinc.org",
    "http://rxnorm.info": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
_LONGEST: Final = 10_000
_ICD_SHORTEST = 3
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CodeClassification:
    """What the book knows of a code: ``labels`` it bears, labels it only makes ``possible``, whether it is ``ordinary``.

    A code both labelled and ordinary is labelled (the quality gate reports it).
    """

    labels: frozenset[str] = _NONE
    possible: frozenset[str] = _NONE
    ordinary: bool = False

    @property
    def classified(self) -> bool:
        return self.ordinary or bool(self.labels)


UNKNOWN: Final = CodeClassification()


class SensitivityCodes:
    """The lookup; :meth:`load` makes one."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeClassification] = {}
        self._prefixes: dict[str, CodeClassification] = {}
        self._keywords: dict[str, re.Pattern[str]] = {}
        # The same few displays stand in most resources.
        self._of_text = functools.lru_cache(maxsize=4096)(self._search)
        self._of = functools.lru_cache(maxsize=4096)(self._look_up)

    @staticmethod
    def load(folder: Path | str = "") -> SensitivityCodes:
        """Read the code lists of an ``ig`` folder ("": the one that comes with the package).

        Raises ValueError, with a text for the operator, for a folder without sensitive and ordinary lists or for a
        ValueSet this reader does not understand in full: a list read in part would let something through.
        """
        folder = Path(folder) if folder else data_folder("ig")
        book = SensitivityCodes()
        names = [path.name for path in sorted((folder / "valuesets").glob("*.json")) if book._read(path)]
        if not {"sensitive", "ordinary"} <= {name.partition("-")[0] for name in names}:
            raise ValueError(f"No lists of sensitive and ordinary codes in {folder}/valuesets; set FHIR_SERVER_IG_PATH to the folder.")
        return book

    def classify(self, system: str, code: str) -> CodeClassification:
        """What is known of a coding; names of systems and spelling of codes are normalised."""
        return self._of(system, code)

    def _look_up(self, system: str, code: str) -> CodeClassification:
        system, code = normalize_code(system, code)
        found = self._codes.get((system, code), UNKNOWN)
        if system == ICD:
            for length in range(_ICD_SHORTEST, len(code) + 1):
                found = _merge(found, self._prefixes.get(code[:length], UNKNOWN))
        return found

    def labels_in_text(self, text: str) -> frozenset[str]:
        """Labels that a free text calls for by its words; the first ten thousand characters are read.

        Names of codes are short.  A text of megabytes must not hold up the writer, and is no code's name.
        """
        return self._of_text(text[:_LONGEST].casefold())

    def _search(self, text: str) -> frozenset[str]:
        return frozenset(label for label, pattern in self._keywords.items() if pattern.search(text))

    def codes(self) -> Iterator[tuple[str, str, CodeClassification]]:
        """Every listed (system, code) with what is known of it, ICD-10-CM prefixes (without dots) included."""
        yield from ((system, code, known) for (system, code), known in self._codes.items())
        yield from ((ICD, prefix, known) for prefix, known in self._prefixes.items())

    def _read(self, path: Path) -> bool:
        kind = path.name.partition("-")[0]
        if kind not in ("sensitive", "department", "ordinary"):
            return False
        resource = json.loads(path.read_text(encoding="utf-8"))
        label = _label(resource)
        if (kind == "ordinary") == (label is not None) or (label is not None and label not in CATEGORIES):
            raise ValueError(f"{path.name}: its useContext must name the category of a sensitive list, and only of one.")
        if label is None:
            known = CodeClassification(ordinary=True)
        elif path.stem.endswith("-second-signal"):
            known = CodeClassification(possible=frozenset({label}))
        else:
            known = CodeClassification(labels=frozenset({label}))
        self._enter(path.name, resource, known)
        patterns = [one["valueString"] for one in resource.get("extension", ()) if one.get("url") == KEYWORD]
        if label is not None and patterns:
            earlier = [self._keywords[label].pattern] if label in self._keywords else []
            self._keywords[label] = re.compile("|".join([*earlier, *patterns]), re.IGNORECASE)
        return True

    def _enter(self, name: str, resource: dict[str, Any], known: CodeClassification) -> None:
        compose = resource.get("compose", {})
        if set(compose) - {"include", "id"} or not compose.get("include"):
            raise ValueError(f"{name}: only compose.include is understood.")
        for part in compose["include"]:
            if set(part) == {"system", "concept"}:
                for concept in part["concept"]:
                    key = normalize_code(part["system"], concept["code"])
                    self._codes[key] = _merge(self._codes.get(key, UNKNOWN), known)
            elif set(part) == {"system", "filter"} and part["system"] == ICD and _is_prefix(part["filter"]):
                prefix = normalize_code(ICD, part["filter"][0]["value"])[1]
                self._prefixes[prefix] = _merge(self._prefixes.get(prefix, UNKNOWN), known)
            else:
                raise ValueError(f"{name}: an include must list concepts, or be one ICD-10-CM filter 'concept is-a'.")


@functools.lru_cache(maxsize=4096)
def normalize_code(system: str, code: str) -> tuple[str, str]:
    """The spelling under which the book files a coding: version and white space off, case folded, ICD without dots."""
    system = system.strip().partition("|")[0].rstrip("/")
    system = SNOMED if system.startswith(SNOMED + "/") else ALIASES.get(system, system)
    code = code.strip().partition("|")[0].strip().upper()
    if system == ICD:
        code = code.replace(".", "")
    elif system == CVX:
        code = code.lstrip("0") or "0"
    return system, code


def _merge(one: CodeClassification, other: CodeClassification) -> CodeClassification:
    if other is UNKNOWN:
        return one
    return CodeClassification(one.labels | other.labels, one.possible | other.possible, one.ordinary or other.ordinary)


def _is_prefix(filters: list[dict[str, str]]) -> bool:
    return len(filters) == 1 and filters[0] == {"property": "concept", "op": "is-a", "value": filters[0].get("value")}


def _label(resource: dict[str, Any]) -> str | None:
    for context in resource.get("useContext", ()):
        for coding in context.get("valueCodeableConcept", {}).get("coding", ()):
            if coding.get("system", "").endswith("/CodeSystem/sensitive-category"):
                label: str = coding["code"]
                return label
    return None
