"""The lists of sensitive and ordinary codes, loaded from the ValueSets of ``ig/valuesets``.

``sensitive-*`` and ``department-*`` give labels, ``*-second-signal`` gives labels that count only with another label, ``ordinary-*``
lists codes that are known to be harmless. A code in no list is unclassified (docs/policy.md, sensitivity labels).
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
_LABORATORY: Final = frozenset(
    f"ordinary-{name}"
    for name in ("allergy-tests", "chemistry", "coagulation", "endocrine", "haematology", "lipids", "pathogens", "urinalysis")
)
_LOINC: Final = "http://loinc.org"
_MAX_SEARCHED_TEXT: Final = 10_000  # characters
_MIN_ICD_PREFIX: Final = 3
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CodeClassification:
    """What the lists say about a code.

    ``labels``    its labels
    ``possible``  labels that it gives only with a second signal
    ``ordinary``  whether a list names it as ordinary; labels count nevertheless
    """

    labels: frozenset[str] = _NONE
    possible: frozenset[str] = _NONE
    ordinary: bool = False

    @property
    def classified(self) -> bool:
        return self.ordinary or bool(self.labels)


UNKNOWN: Final = CodeClassification()


class SensitivityCodes:
    """Classifies codes and texts.  :meth:`load` reads the lists."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeClassification] = {}
        self._prefixes: dict[str, CodeClassification] = {}
        self._laboratory: set[tuple[str, str]] = set()
        self._keywords: dict[str, re.Pattern[str]] = {}
        # Most resources have the same few codes and displays.
        self._cached_labels_in_text = functools.lru_cache(maxsize=4096)(self._search)
        self._cached_classification = functools.lru_cache(maxsize=4096)(self._look_up)

    @staticmethod
    def load(folder: Path | str = "") -> SensitivityCodes:
        """Read the code lists of an ``ig`` folder ("": the folder in the package).

        Raises ValueError with a message for the operator if the folder lacks sensitive or ordinary lists, or if a ValueSet has
        parts that this reader does not understand: an incomplete list would disclose sensitive content.
        """
        folder = Path(folder) if folder else data_folder("ig")
        codes = SensitivityCodes()
        names = [path.name for path in sorted((folder / "valuesets").glob("*.json")) if codes._read(path)]
        if not {"sensitive", "ordinary"} <= {name.partition("-")[0] for name in names}:
            raise ValueError(f"No lists of sensitive and ordinary codes in {folder}/valuesets; set FHIR_SERVER_IG_PATH to the folder.")
        return codes

    def classify(self, system: str, code: str) -> CodeClassification:
        """The classification of a coding, after normalization of system and code."""
        return self._cached_classification(system, code)

    def _look_up(self, system: str, code: str) -> CodeClassification:
        system, code = normalize_code(system, code)
        known = self._codes.get((system, code), UNKNOWN)
        if system == ICD:
            for length in range(_MIN_ICD_PREFIX, len(code) + 1):
                known = _merge(known, self._prefixes.get(code[:length], UNKNOWN))
        return known

    def is_laboratory(self, system: str, code: str) -> bool:
        """Whether the code is that of a laboratory test: it is in a list of them, or a sensitive code of LOINC."""
        key = normalize_code(system, code)
        return key in self._laboratory or (key[0] == _LOINC and bool(self.classify(system, code).labels))

    def labels_in_text(self, text: str) -> frozenset[str]:
        """The labels whose keywords occur in the first 10,000 characters of a text; the limit bounds the time that a write takes."""
        return self._cached_labels_in_text(text[:_MAX_SEARCHED_TEXT].casefold())

    def _search(self, text: str) -> frozenset[str]:
        return frozenset(label for label, pattern in self._keywords.items() if pattern.search(text))

    def codes(self) -> Iterator[tuple[str, str, CodeClassification]]:
        """Every listed (system, code) with its classification, ICD-10-CM prefixes (without dots) included."""
        yield from ((system, code, known) for (system, code), known in self._codes.items())
        yield from ((ICD, prefix, known) for prefix, known in self._prefixes.items())

    def _read(self, path: Path) -> bool:
        kind = path.name.partition("-")[0]
        if kind not in ("sensitive", "department", "ordinary"):
            return False
        resource = json.loads(path.read_text(encoding="utf-8"))
        label = _label(resource)
        if (kind == "ordinary") == (label is not None) or (label is not None and label not in CATEGORIES):
            raise ValueError(f"{path.name}: useContext must name the category of a sensitive list and be absent from an ordinary list.")
        if label is None:
            known = CodeClassification(ordinary=True)
        elif path.stem.endswith("-second-signal"):
            known = CodeClassification(possible=frozenset({label}))
        else:
            known = CodeClassification(labels=frozenset({label}))
        self._add_codes(path.name, resource, known)
        if path.stem in _LABORATORY:
            concepts = [(part["system"], concept["code"]) for part in resource["compose"]["include"] for concept in part.get("concept", ())]
            self._laboratory.update(normalize_code(*concept) for concept in concepts)
        patterns = [extension["valueString"] for extension in resource.get("extension", ()) if extension.get("url") == KEYWORD]
        if label is not None and patterns:
            earlier = [self._keywords[label].pattern] if label in self._keywords else []
            self._keywords[label] = re.compile("|".join([*earlier, *patterns]), re.IGNORECASE)
        return True

    def _add_codes(self, name: str, resource: dict[str, Any], known: CodeClassification) -> None:
        compose = resource.get("compose", {})
        if set(compose) - {"include", "id"} or not compose.get("include"):
            raise ValueError(f"{name}: the only supported part of compose is include.")
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
    """System and code without versions and white space, the code in upper case, ICD-10-CM without dots, CVX without leading zeros."""
    system = system.strip().partition("|")[0].rstrip("/")
    system = SNOMED if system.startswith(SNOMED + "/") else ALIASES.get(system, system)
    code = code.strip().partition("|")[0].strip().upper()
    if system == ICD:
        code = code.replace(".", "")
    elif system == CVX:
        code = code.lstrip("0") or "0"
    return system, code


def _merge(first: CodeClassification, second: CodeClassification) -> CodeClassification:
    if second is UNKNOWN:
        return first
    return CodeClassification(first.labels | second.labels, first.possible | second.possible, first.ordinary or second.ordinary)


def _is_prefix(filters: list[dict[str, str]]) -> bool:
    return len(filters) == 1 and filters[0] == {"property": "concept", "op": "is-a", "value": filters[0].get("value")}


def _label(resource: dict[str, Any]) -> str | None:
    for context in resource.get("useContext", ()):
        for coding in context.get("valueCodeableConcept", {}).get("coding", ()):
            if coding.get("system", "").endswith("/CodeSystem/sensitive-category"):
                label: str = coding["code"]
                return label
    return None
