"""The conformance report: each requirement with its tests, which name it, and their outcomes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.attacks.index import ATTACKS
from tests.conformance import features

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "conformance.md"
REQUIREMENTS: Final = Path(__file__).parent / "requirements.yaml"
_NAME: Final = re.compile(r"test_(smart|group)_((?:[0-9]+_)+)(.+)")
_SKIPPING: Final = {"skip", "skipif", "xfail", "importorskip"}
_INTRODUCTION: Final = """# Conformance

This page lists the requirements that the public test kits for SMART App Launch 2.2 and ONC (g)(10) test, further requirements
of the SMART guide, public client libraries and browsers, attacks that must fail, and the features of FHIR R4 that comparisons of
servers list, each with its tests and their results. `make conformance` writes it from `tests/conformance/requirements.yaml`,
`features.yaml` beside it (with the requests in full), the names of the tests and their outcomes. A test fails if the page is out
of date. The page is not a certificate: the test kits themselves were not run.
"""


@dataclass(frozen=True, slots=True, order=True)
class ReportedTest:
    """A test function.  ``path`` is relative to the project.  ``may_skip``: a mark or the test itself can skip it."""

    path: str
    name: str
    may_skip: bool = False

    @property
    def id(self) -> str:
        return f"{self.path}::{self.name}"

    @property
    def title(self) -> str:
        numbered = _NAME.fullmatch(self.name)
        text = numbered[3] if numbered else self.name.removeprefix("test_")
        return text.replace("__", ": ").replace("_", " ")

    def requirements(self) -> tuple[tuple[str, int], ...]:
        """The requirements in its name, as (kind, number)."""
        numbered = _NAME.fullmatch(self.name)
        if numbered is None:
            return ()
        numbers = [int(number) for number in numbered[2].strip("_").split("_")]
        if numbered[1] == "smart":
            return tuple(("smart", number) for number in numbers)
        if numbers[:2] == [7, 8]:
            return ("groups", 7), ("groups", 8), *(("export", number) for number in numbers[2:])
        return tuple(("groups", number) for number in numbers)


def tests(root: Path = ROOT) -> tuple[ReportedTest, ...]:
    """All test functions below ``root``/tests, parsed without import."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        if "node_modules" not in path.parts:
            found += _tests(path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
    return tuple(found)


def _tests(path: str, module: ast.Module) -> list[ReportedTest]:
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    others = [node for node in module.body if isinstance(node, ast.Assign) and _mentions(node, {"pytestmark"})]
    marked = any(_mentions(node, _SKIPPING) for node in others)
    return [ReportedTest(path, node.name, marked or _mentions(node, _SKIPPING)) for node in functions]


def _mentions(node: ast.AST, names: set[str]) -> bool:
    inside = (one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in ast.walk(node))
    return any(name in names for name in inside)


def requirements(path: Path = REQUIREMENTS) -> dict[tuple[str, int], dict[str, str]]:
    """The requirements' members by (kind, number), in the order of the page."""
    sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {("smart", number): one for section in sections["smart"] for number, one in section["items"].items()}
    return found | {(kind, number): one for kind in ("groups", "export", "others") for number, one in sections[kind].items()}


def faults(
    known: Mapping[tuple[str, int], Mapping[str, str]],
    all_tests: Iterable[ReportedTest],
    attacks: Mapping[str, tuple[str, ...]] = ATTACKS,
) -> list[str]:
    """What is wrong with the report: requirements without test or reason, unknown numbers, tests that can skip."""
    listed = list(all_tests)
    shown = {key for test in listed for key in test.requirements()}
    missing = [f"{kind} {number} has neither test nor reason" for kind, number in known if (kind, number) not in shown]
    found = [fault for fault in missing if "reason" not in known[(fault.split()[0], int(fault.split()[1]))]]
    found += [
        f"{test.id} shows {kind} {number}, which is not listed"
        for test in listed
        for kind, number in test.requirements()
        if (kind, number) not in known
    ]
    starts = tuple(start for some in attacks.values() for start in some)
    found += [f"{test.id} can skip" for test in listed if test.may_skip and (test.requirements() or test.name.startswith(starts))]
    found += [f"no test's name begins with {start}" for start in starts if not any(test.name.startswith(start) for test in listed)]
    alone = [test for test in listed if "tests/attacks/" in test.path and not test.name.startswith(starts)]
    return found + [f"{test.id} belongs to no listed attack" for test in alone]


def reported(all_tests: Iterable[ReportedTest]) -> list[ReportedTest]:
    """The tests that the report counts: those of requirements and attacks."""
    starts = tuple(start for some in ATTACKS.values() for start in some)
    return [test for test in all_tests if test.requirements() or test.name.startswith(starts)]


def shown_by(all_tests: Iterable[ReportedTest]) -> list[str]:
    """The ids of all tests that the report names."""
    of_features = [id for some in features.sections().values() for one in some for id in one.test_ids]
    return [*dict.fromkeys([*(test.id for test in reported(all_tests)), *of_features])]


def page(all_tests: Iterable[ReportedTest], outcomes: Mapping[str, str]) -> str:
    """The report as Markdown.  ``outcomes`` are by test id."""
    listed = sorted(all_tests)
    sections: dict[str, Any] = yaml.safe_load(REQUIREMENTS.read_text(encoding="utf-8"))
    by_number: dict[tuple[str, int], list[ReportedTest]] = {}
    for test in listed:
        for key in test.requirements():
            by_number.setdefault(key, []).append(test)
    parts = [_INTRODUCTION, _summary(by_number, listed, outcomes)]
    for section in sections["smart"]:
        parts.append(f"## {section['title']}\n\n" + _table("smart", section["items"], by_number, outcomes))
    parts.append("## The groups of ONC (g)(10)\n\n" + _table("groups", sections["groups"], by_number, outcomes))
    parts.append("## Bulk export, groups 7 and 8\n\n" + _table("export", sections["export"], by_number, outcomes))
    parts.append("## Other suites\n\n" + _table("others", sections["others"], by_number, outcomes))
    attacks = {words: [test for test in listed if test.name.startswith(starts)] for words, starts in ATTACKS.items()}
    rows = [f"| {words} | {_result(found, outcomes)} | {_links(found)} |" for words, found in attacks.items()]
    parts.append("## Attacks\n\n" + "\n".join(["| attack | result | tests |", "|---|---|---|", *rows]) + "\n")
    parts.append(features.page(features.sections(), outcomes))
    return "\n".join(parts)


def _summary(by_number: Mapping[tuple[str, int], list[ReportedTest]], listed: list[ReportedTest], outcomes: Mapping[str, str]) -> str:
    known = requirements()
    shown = sum(key in by_number and "reason" not in one for key, one in known.items())
    partly = sum(key in by_number and "reason" in one for key, one in known.items())
    tests = reported(listed)
    passed = sum(outcomes.get(test.id) == "passed" for test in tests)
    untested = len(known) - shown - partly
    counts = f"{len(known)} requirements: {shown} tested, {partly} tested in part, {untested} not applicable."
    return f"{counts} {passed} of {len(tests)} tests passed.\n"


def _table(
    kind: str, items: Mapping[int, Mapping[str, str]], by_number: Mapping[tuple[str, int], list[ReportedTest]], outcomes: Mapping[str, str]
) -> str:
    rows = ["| | requirement | source | result | tests |", "|---|---|---|---|---|"]
    for number, one in items.items():
        found = by_number.get((kind, number), [])
        cell = "<br>".join(filter(None, [one.get("reason", ""), _links(found)]))
        result = _result(found, outcomes) if found else "not applicable"
        rows.append(f"| {number} | {one['must']} | {one['source']} | {result} | {cell} |")
    return "\n".join(rows) + "\n"


def _result(found: Iterable[ReportedTest], outcomes: Mapping[str, str]) -> str:
    """ "passed", or the other outcomes."""
    return ", ".join(sorted({outcomes.get(test.id, "not run") for test in found}))


def _links(found: Iterable[ReportedTest]) -> str:
    return "<br>".join(f"[{test.title}](../{test.path})" for test in found)
