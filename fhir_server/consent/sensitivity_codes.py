"""The lists of sensitive and ordinary codes and words, loaded from ``valuesets/`` and ``words.json`` of the folder ``ig``.

``sensitive-*`` and ``department-*`` give labels, ``*-second-signal`` gives labels that count only with another label, ``ordinary-*``
lists codes that are known to be harmless, ``neutral-*`` codes that say nothing by themselves.  A code in no list is unclassified
(docs/policy.md, sensitivity labels; docs/codes.md).  An institution's own lists are a second folder of ValueSets.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from fhir_server.consent.code_lists import KINDS, UNKNOWN, CodeClassification, CodeLists, read_value_set
from fhir_server.consent.code_systems import normalize_code
from fhir_server.consent.visibility_classes import CATEGORIES, UNCLASSIFIED
from fhir_server.consent.word_search import Word, WordReading, WordSearch
from fhir_server.package_data import data_folder

__all__ = ["UNKNOWN", "CodeClassification", "SensitivityCodes", "normalize_code"]
WORDS: Final = "words.json"
_MAX_CACHED_TEXT: Final = 500  # characters


class SensitivityCodes:
    """Classifies codes and texts.  :meth:`load` reads the lists."""

    def __init__(self, lists: CodeLists, words: WordSearch) -> None:
        self._lists = lists
        self._words = words
        # Most resources have the same few codes and displays.
        self._cached_classification = functools.lru_cache(maxsize=4096)(lists.classify)
        self._cached_reading = functools.lru_cache(maxsize=4096)(words.search)

    @staticmethod
    def load(folder: Path | str = "", own: Path | str = "", *, without: Collection[Path] = ()) -> SensitivityCodes:
        """Read the lists of an ``ig`` folder ("": the folder in the package), and those that an institution imported ("": none).

        ``without`` names files of the folder ``own`` that are about to be replaced.

        Raises ValueError with a message for the operator if the folder lacks sensitive or ordinary lists, if a ValueSet has parts that
        this reader does not understand (an incomplete list would disclose sensitive content), or if the folder ``own`` is missing.
        """
        folder = Path(folder) if folder else data_folder("ig")
        lists = CodeLists()
        kinds = {read_value_set(lists, path) for path in sorted((folder / "valuesets").glob("*.json"))}
        if not {"sensitive", "ordinary"} <= kinds:
            raise ValueError(f"No lists of sensitive and ordinary codes in {folder}/valuesets; set FHIR_SERVER_IG_PATH to the folder.")
        words = WordSearch(_read_words(folder / WORDS))
        if own:
            if not Path(own).is_dir():
                raise ValueError(f"There is no folder {own} with the institution's code lists (FHIR_SERVER_CODES_PATH).")
            for path in sorted(path for path in Path(own).glob("*.json") if path not in without):
                if not read_value_set(lists, path):
                    raise ValueError(f"{path}: the name of a code list begins with {', '.join(KINDS)} (FHIR_SERVER_CODES_PATH).")
        return SensitivityCodes(lists, words)

    def classify(self, system: str, code: str) -> CodeClassification:
        """The classification of a coding, after normalization of system and code."""
        return self._cached_classification(system, code)

    def read_text(self, text: str) -> WordReading:
        """What the words of a text say; long texts are not remembered."""
        return self._cached_reading(text) if len(text) <= _MAX_CACHED_TEXT else self._words.search(text)

    def labels_in_text(self, text: str) -> frozenset[str]:
        """The labels that the words of a text give alone, and UNCLASSIFIED if the text is too long to be read to its end."""
        reading = self.read_text(text)
        return reading.labels if reading.complete else reading.labels | {UNCLASSIFIED}

    def codes(self) -> Iterator[tuple[str, str, CodeClassification]]:
        """Every listed (system, code) with its classification, ICD-10-CM prefixes (without dots) and ranges included."""
        return self._lists.codes()


def _read_words(path: Path) -> Iterator[Word]:
    """The words of a list.  Raises ValueError if the file is missing or has an unknown label."""
    if not path.is_file():
        raise ValueError(f"The file {path} with the words of sensitive content is missing; run scripts/build_valuesets.py.")
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for entry in entries:
        if entry["label"] not in CATEGORIES:
            raise ValueError(f"{path.name}: {entry['term']!r} has an unknown label.")
        yield Word(entry["term"], entry["label"], entry.get("alone", True), tuple(entry.get("unless", ())))
