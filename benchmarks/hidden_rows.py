"""Measures what rows that a caller may not see cost the caller: ``python -m benchmarks.hidden_rows``.

Two servers hold the same visible rows of a teenager; one also holds hidden rows of the same patient and type, a third of them
not yet released.  A parent sends the same requests to both, in turn.  The answers must be equal, byte for byte (but for encrypted
page links), and the CPU time within 5 %: the program prints the median of the ratios of neighboring samples with its 95 %
confidence interval, and the Mann-Whitney probability that a request takes longer with hidden rows (0.5: no difference), and exits
with 1 for a median past the limit.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from time import process_time_ns
from typing import Any, Final

from tests.served import Served

LIMIT: Final = 0.05
_CHUNK: Final = 500
_LOINC: Final = "http://loinc.org"
_ORDINARY: Final = ("718-7", "2160-0", "2345-7", "8867-4")
_HIDDEN_CODE: Final = "56888-1"
_BATCH: Final = 5  # requests in one sample

REQUESTS: Final[dict[str, str]] = {
    "first page": "Observation",
    "patient=": "Observation?patient=teen",
    "subject=": "Observation?subject=Patient/teen",
    "code=": f"Observation?code={_LOINC}|718-7",
    "code= of hidden rows": f"Observation?code={_LOINC}|{_HIDDEN_CODE}",
    "system only": f"Observation?code={_LOINC}|",
    "code:not=": f"Observation?code:not={_LOINC}|718-7",
    "category and date": "Observation?category=laboratory&date=ge2026-05-01",
    "date range": "Observation?date=ge2026-05-01&date=lt2026-06-01",
    "date:missing=true": "Observation?date:missing=true",
    "_lastUpdated": "Observation?_lastUpdated=ge2020-01-01",
    "value-quantity=gt": "Observation?value-quantity=gt40",
    "value-string=": "Observation?value-string=note",
    "identifier=": "Observation?identifier=urn:lab|v7",
    "encounter=": "Observation?encounter=Encounter/teen-checkup",
    "_id= of a hidden row": "Observation?_id=h1",
    "_summary=count": "Observation?_summary=count",
    "_total=accurate": "Observation?_total=accurate&_count=5",
    "_sort=date": "Observation?_sort=date",
    "_sort=-date": "Observation?_sort=-date",
    "_include": "Observation?_count=20&_include=Observation:subject",
    "_revinclude": "Patient?_id=teen&_revinclude=Observation:subject",
    "$everything": "Patient/teen/$everything?_count=50",
    "read of a visible row": "Observation/v7",
}
_PAGE_LINK: Final = re.compile(rb"_page=[^\"&]*")  # encrypted for the caller's session
_NEXT_PAGE: Final = "page 2"
# a hidden id on the server with hidden rows against an absent id on the other
PAIRS: Final[dict[str, tuple[str, str]]] = {
    "read, hidden id": ("Observation/h4", "Observation/n4"),
    "read, unreleased id": ("Observation/h3", "Observation/n3"),
    "vread, hidden id": ("Observation/h4/_history/1", "Observation/n4/_history/1"),
    "history, hidden id": ("Observation/h4/_history", "Observation/n4/_history"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """One request: milliseconds with and without hidden rows, the ratio with its confidence interval, and the probability."""

    name: str
    with_hidden: float
    without: float
    ratio: float
    interval: tuple[float, float]
    probability: float

    @property
    def is_within_limit(self) -> bool:
        """Whether the median is within the limit."""
        return abs(self.ratio - 1) <= LIMIT


def summarize(name: str, with_hidden: Sequence[float], without: Sequence[float]) -> Result:
    """Compare paired samples (milliseconds)."""
    ratios = [one / other for one, other in zip(with_hidden, without, strict=True)]
    random = Random(1)
    medians = sorted(median(random.choices(ratios, k=len(ratios))) for _ in range(400))
    return Result(
        name, median(with_hidden), median(without), median(ratios), (medians[9], medians[389]), probability_longer(with_hidden, without)
    )


def probability_longer(left: Sequence[float], right: Sequence[float]) -> float:
    """The Mann-Whitney estimate of the probability that a sample of ``left`` is greater than one of ``right``."""
    ordered = sorted(right)
    wins = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in left) / 2
    return wins / (len(left) * len(right))


def _observation(id: str, number: int, code: str, **more: Any) -> dict[str, Any]:
    day = f"2026-{number % 10 + 1:02}-{number % 28 + 1:02}"
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": _LOINC, "code": code}]},
        "identifier": [{"system": "urn:lab", "value": id}],
        "subject": {"reference": "Patient/teen"},
        "effectiveDateTime": day,
        "valueQuantity": {"value": number % 100, "unit": "mg/dL"},
    } | more


def _hidden(number: int) -> dict[str, Any]:
    if number % 3 == 0:
        return _observation(f"h{number}", number, "718-7", extension=[_RELEASE])
    return _observation(f"h{number}", number, _HIDDEN_CODE)


_RELEASE: Final = {"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2099-01-01T00:00:00Z"}


def _fill(server: Served, visible: int, hidden: int) -> None:
    feed = server.token()
    half = [_observation(f"v{number}", number, _ORDINARY[number % 4]) for number in range(visible)]
    rows = [*half[: visible // 2], *map(_hidden, range(hidden)), *half[visible // 2 :]]
    for start in range(0, len(rows), _CHUNK):
        entries = [
            {"resource": row, "request": {"method": "PUT", "url": f"Observation/{row['id']}"}} for row in rows[start : start + _CHUNK]
        ]
        answer = server.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        if answer.status != 200:
            raise RuntimeError(f"The rows could not be stored: {answer.body[:500]!r}")


def _sample(server: Served, token: str, path: str) -> float:
    """CPU milliseconds of one request, from a few of them."""
    began = process_time_ns()
    for _ in range(_BATCH):
        server.get(token, path)
    return (process_time_ns() - began) / _BATCH / 1e6


def measure(samples: int, visible: int, hidden: int, urls: tuple[str, str]) -> list[Result]:
    """Measure all requests.  Raises RuntimeError if an answer differs."""
    full, plain = (Served(url) for url in urls)
    try:
        _fill(full, visible, hidden)
        _fill(plain, visible, 0)
        tokens = full.app_token("parent-a", "teen"), plain.app_token("parent-a", "teen")
        paths = {name: (path, path) for name, path in REQUESTS.items()} | PAIRS
        following = [_next_page(server, token) for server, token in zip((full, plain), tokens, strict=True)]
        paths[_NEXT_PAGE] = following[0], following[1]
        results = []
        for name, (of_full, of_plain) in paths.items():
            answers = full.get(tokens[0], of_full).body, plain.get(tokens[1], of_plain).body
            if name not in PAIRS and _PAGE_LINK.sub(b"", answers[0]) != _PAGE_LINK.sub(b"", answers[1]):
                raise RuntimeError(f"Hidden rows change the answer to {of_full}.")
            pairs = []
            for number in range(samples):
                order = ((full, tokens[0], of_full), (plain, tokens[1], of_plain))
                times = [_sample(*one) for one in (order if number % 2 else order[::-1])]
                pairs.append(times if number % 2 else times[::-1])
            results.append(summarize(name, [pair[0] for pair in pairs], [pair[1] for pair in pairs]))
        return results
    finally:
        full.close()
        plain.close()


def _next_page(server: Served, token: str) -> str:
    links = server.get(token, "Observation?_count=20").json["link"]
    return str(next(link["url"] for link in links if link["relation"] == "next"))


def table(results: Sequence[Result]) -> str:
    """The results as text."""
    lines = [f"{'request':24} {'with':>8} {'without':>8} {'ratio':>6}  95 % interval  P(longer)"]
    for one in results:
        interval = f"{one.interval[0]:.3f} to {one.interval[1]:.3f}"
        mark = "" if one.is_within_limit else "  PAST THE LIMIT"
        lines.append(f"{one.name:24} {one.with_hidden:8.3f} {one.without:8.3f} {one.ratio:6.3f}  {interval}  {one.probability:5.2f}{mark}")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark on SQLite stores in a temporary folder, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measures what hidden rows cost a caller.")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--visible", type=int, default=300)
    parser.add_argument("--hidden", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = f"sqlite:///{Path(folder) / 'full.db'}", f"sqlite:///{Path(folder) / 'plain.db'}"
        results = measure(options.samples, options.visible, options.hidden, urls)
    print(table(results))
    return 0 if all(one.is_within_limit for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
