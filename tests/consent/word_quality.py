"""Measures recall and precision of the word lists on sentences that a clinic would write, and reads the published table.

Recall: of the sentences of a category, how many have its label.  Precision: of the labels of this category that the words give to any
sentence of the language, how many are right.  ``python -m tests.consent.word_quality`` prints the table of docs/codes.md.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.word_search import WordReading, WordSearch
from tests.consent.quality_gate import table

TERMS = Path(__file__).parent / "clinic_terms.csv"


class Reader(Protocol):
    def read_text(self, text: str) -> WordReading: ...


@dataclass(frozen=True)
class Quality:
    """Counts of one list: its sentences, those found alone, those found alone or with a second signal, and wrong labels."""

    sentences: int
    found: int
    possible: int
    wrong: int

    @property
    def recall(self) -> int:
        return round(100 * self.found / self.sentences)

    @property
    def precision(self) -> int:
        return round(100 * self.found / (self.found + self.wrong)) if self.found + self.wrong else 100

    @staticmethod
    def of(words: WordSearch) -> Reader:
        """Return a reader for words that are not those of the package."""

        class Other:
            def read_text(self, text: str) -> WordReading:
                return words.search(text)

        return Other()

    def row(self, name: str) -> str:
        return f"| {name} | {self.sentences} | {self.found} | {self.possible} | {self.wrong} | {self.recall} % | {self.precision} % |"


def measure(reader: Reader, path: Path) -> dict[str, Quality]:
    """Return the quality of each list (``HIV en``), and of ``all``.

    A label of another category than the sentence's own is wrong only if the sentence has none: many sentences have two.
    """
    counts: dict[str, Counter[str]] = {}
    for row in table(path):
        reading = reader.read_text(row["text"])
        label, language = row["label"], row["language"]
        names = {f"{label} {language}"} if label else set()
        for name in (*names, "all") if label else ():
            counts.setdefault(name, Counter()).update(
                sentences=1, found=int(label in reading.labels), possible=int(label in reading.labels | reading.possible)
            )
        for wrong in () if label else reading.labels:
            for name in (f"{wrong} {language}", "all"):
                counts.setdefault(name, Counter()).update(wrong=1)
    return {name: Quality(n["sentences"], n["found"], n["possible"], n["wrong"]) for name, n in counts.items()}


def published(page: Path) -> dict[str, Quality]:
    """Return the table of the documentation."""
    rows = re.findall(r"^\| ([A-Z]+ e[ns]|all) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page.read_text(encoding="utf-8"), re.M)
    return {name: Quality(*map(int, numbers)) for name, *numbers in rows}


if __name__ == "__main__":
    for name, quality in sorted(measure(SensitivityCodes.load(), TERMS).items()):
        print(quality.row(name))
