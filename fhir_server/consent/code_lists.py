"""Lists of codes: single codes, ICD-10-CM prefixes and ranges of numbers, read from ValueSets and looked up for a coding."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fhir_server.consent.code_systems import CPT, HCPCS, ICD, REVENUE, normalize_code
from fhir_server.consent.visibility_classes import CATEGORIES

KINDS: Final = ("sensitive", "department", "ordinary", "neutral")
_MIN_ICD_PREFIX: Final = 3
_RANGES: Final = frozenset({CPT, HCPCS, REVENUE})  # systems of codes with one length
_RANGE: Final = re.compile(r"([A-Z]?\d*)((?:\[0-9\])+)")
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CodeClassification:
    """What the lists say about a code.

    ``labels``    its labels
    ``possible``  labels that it gives only with a second signal
    ``ordinary``  whether a list names it as ordinary; labels count nevertheless
    ``neutral``   whether it says nothing by itself, as a general practice or a follow-up does
    """

    labels: frozenset[str] = _NONE
    possible: frozenset[str] = _NONE
    ordinary: bool = False
    neutral: bool = False

    @property
    def classified(self) -> bool:
        return self.ordinary or bool(self.labels)


UNKNOWN: Final = CodeClassification()


class CodeLists:
    """Codes, prefixes and ranges with their classification."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeClassification] = {}
        # (system, what the code begins with, length of the code; 0: any).  An ICD-10-CM prefix stands for every code under it.
        self._prefixes: dict[tuple[str, str, int], CodeClassification] = {}

    def classify(self, system: str, code: str) -> CodeClassification:
        """The classification of a coding, after normalization of system and code.

        Every entry that covers the code counts with its labels.  An ambiguous entry takes the word "ordinary" from a wider one: the
        cut in a range.  It does not take it from an entry of the same width, where two lists know the code in two ways.
        """
        system, code = normalize_code(system, code)
        known = UNKNOWN
        if system == ICD:
            for length in range(_MIN_ICD_PREFIX, len(code) + 1):
                known = _narrow(known, self._prefixes.get((ICD, code[:length], 0), UNKNOWN))
        elif system in _RANGES:
            for length in range(len(code)):
                if code[length:].isdecimal():
                    known = _narrow(known, self._prefixes.get((system, code[:length], len(code)), UNKNOWN))
        return _narrow(known, self._codes.get((system, code), UNKNOWN))

    def add(self, system: str, code: str, known: CodeClassification) -> None:
        """Add a single code."""
        key = normalize_code(system, code)
        self._codes[key] = _merge(self._codes.get(key, UNKNOWN), known)

    def add_prefix(self, system: str, prefix: str, length: int, known: CodeClassification) -> None:
        """Add every code of a length (0: of any) that begins with a prefix."""
        key = (system, prefix.replace(".", "").upper(), length)
        self._prefixes[key] = _merge(self._prefixes.get(key, UNKNOWN), known)

    def codes(self) -> Iterator[tuple[str, str, CodeClassification]]:
        """Every listed (system, code) with its classification; of a prefix or range, the part that its codes begin with."""
        yield from ((system, code, known) for (system, code), known in self._codes.items())
        yield from ((system, prefix, known) for (system, prefix, _), known in self._prefixes.items())


def read_value_set(lists: CodeLists, path: Path) -> str:
    """Add the codes of a ValueSet, whose file name begins with its kind, and return the kind ("" for any other file).

    Raises ValueError, with a message for the operator, for a ValueSet that cannot be read completely.
    """
    kind = path.name.partition("-")[0]
    if kind not in KINDS:
        return ""
    resource = json.loads(path.read_text(encoding="utf-8"))
    label = value_set_label(resource)
    if (kind in ("ordinary", "neutral")) == (label is not None) or (label is not None and label not in CATEGORIES):
        raise ValueError(f"{path.name}: useContext must name the category of a sensitive list and be absent from an ordinary list.")
    if label is None:
        known = CodeClassification(ordinary=kind == "ordinary", neutral=kind == "neutral")
    elif path.stem.endswith("-second-signal"):
        known = CodeClassification(possible=frozenset({label}))
    else:
        known = CodeClassification(labels=frozenset({label}))
    compose = resource.get("compose", {})
    if set(compose) - {"include", "id"} or not compose.get("include"):
        raise ValueError(f"{path.name}: the only supported part of compose is include.")
    for part in compose["include"]:
        _add_part(lists, path.name, part, known)
    return kind


def _add_part(lists: CodeLists, name: str, part: dict[str, Any], known: CodeClassification) -> None:
    system = normalize_code(part.get("system", ""), "")[0] if set(part) == {"system", "filter"} else ""
    if set(part) == {"system", "concept"}:
        for concept in part["concept"]:
            lists.add(part["system"], concept["code"], known)
    elif system == ICD and _is_filter(part["filter"], "concept", "is-a"):
        lists.add_prefix(ICD, part["filter"][0]["value"], 0, known)
    elif _is_filter(part.get("filter", []), "code", "regex") and (found := _RANGE.fullmatch(part["filter"][0]["value"])):
        system = normalize_code(part["system"], found[1])[0] if part["system"] != REVENUE else REVENUE
        if system not in _RANGES:
            raise ValueError(f"{name}: only CPT, HCPCS and revenue codes have ranges.")
        lists.add_prefix(system, found[1], len(found[1]) + len(found[2]) // len("[0-9]"), known)
    else:
        raise ValueError(
            f"{name}: an include must list concepts, or be one ICD-10-CM filter 'concept is-a', or a range of CPT, HCPCS or revenue codes."
        )


def _merge(first: CodeClassification, second: CodeClassification) -> CodeClassification:
    if second is UNKNOWN or first is UNKNOWN:
        return first if second is UNKNOWN else second
    return CodeClassification(
        first.labels | second.labels,
        first.possible | second.possible,
        first.ordinary or second.ordinary,
        first.neutral or second.neutral,
    )


def _narrow(wider: CodeClassification, closer: CodeClassification) -> CodeClassification:
    """The classification of a code by a wider and a closer entry."""
    if closer is UNKNOWN or wider is UNKNOWN:
        return wider if closer is UNKNOWN else closer
    ambiguous = (bool(closer.possible) or closer.neutral) and not closer.ordinary
    return CodeClassification(
        wider.labels | closer.labels,
        wider.possible | closer.possible,
        closer.ordinary or (wider.ordinary and not ambiguous),
        closer.neutral or (wider.neutral and not closer.ordinary),
    )


def _is_filter(filters: list[dict[str, str]], prop: str, op: str) -> bool:
    return len(filters) == 1 and filters[0] == {"property": prop, "op": op, "value": filters[0].get("value")}


def value_set_label(resource: dict[str, Any]) -> str | None:
    """The category that a ValueSet names in ``useContext``."""
    for context in resource.get("useContext", ()):
        for coding in context.get("valueCodeableConcept", {}).get("coding", ()):
            if coding.get("system", "").endswith("/CodeSystem/sensitive-category"):
                label: str = coding["code"]
                return label
    return None
