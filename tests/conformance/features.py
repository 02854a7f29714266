"""The features of R4 in the conformance report: what is served with the request or tests that show it, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

FEATURES: Final = Path(__file__).parent / "features.yaml"
TEST: Final = "tests/conformance/test_features.py::test_request_shows_the_feature"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature; ``tests/conformance/features.yaml`` explains the members."""

    feature: str
    request: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    status: int = 200
    ids: list[str] | None = None
    has: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    tests: tuple[str, ...] = ()
    absent: str = ""

    @property
    def test_ids(self) -> list[str]:
        """The ids of the tests that show it."""
        return [TEST] * bool(self.request) + [f"tests/{name}" for name in self.tests]


def sections() -> dict[str, list[Feature]]:
    """Title -> features, in the order of the page."""
    rows = yaml.safe_load(FEATURES.read_text(encoding="utf-8"))
    return {row["title"]: [Feature(**one | {"tests": tuple(one.get("tests", ()))}) for one in row["items"]] for row in rows}


def faults(found: Mapping[str, list[Feature]], tests: Mapping[str, bool]) -> list[str]:
    """What is wrong with the features.  ``tests``: id -> whether the test may be skipped."""
    wrong: list[str] = []
    for one in (feature for features in found.values() for feature in features):
        if not (one.test_ids or one.absent):
            wrong.append(f"{one.feature} has neither request nor test nor reason")
        wrong += [f"{one.feature} is shown by {id}, which does not exist" for id in one.test_ids if id not in tests]
        wrong += [f"{one.feature} is shown by {id}, which can skip" for id in one.test_ids if tests.get(id)]
    return wrong


def page(found: Mapping[str, list[Feature]], outcomes: Mapping[str, str]) -> str:
    """The sections of the report.  ``outcomes`` are by test id."""
    all_of_them = [feature for features in found.values() for feature in features]
    absent = sum(bool(one.absent) for one in all_of_them)
    parts = [f"FHIR: {len(all_of_them)} features and repaired faults; {len(all_of_them) - absent} shown, {absent} not served.\n"]
    for title, features in found.items():
        rows = "\n".join(_row(one, outcomes) for one in features)
        parts.append(f"## {title}\n\n| feature | result | request | tests |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(one: Feature, outcomes: Mapping[str, str]) -> str:
    result = "not served" if one.absent else ", ".join(sorted({outcomes.get(id, "not run") for id in one.test_ids}))
    request = f"`{one.request.strip().replace('|', chr(92) + '|')}`: {one.status}" if one.request else ""
    links = [f"[{name.partition('::test_')[2].replace('_', ' ')}](../tests/{name.partition('::')[0]})" for name in one.tests]
    return f"| {one.feature} | {result} | {request} | {'<br>'.join([*filter(None, [one.absent]), *links])} |"
