"""The conformance report: requirements joined with the tests whose names show them, and how those tests came out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.attacks.index import ATTACKS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "conformance.md"
REQUIREMENTS: Final = Path(__file__).parent / "requirements.yaml"
_NAME: Final = re.compile(r"test_(smart|group)_((?:[0-9]+_)+)(.+)")
_ABSENT: Final = {"skip", "skipif", "xfail", "importorskip"}
_INTRODUCTION: Final = """# Conformance

What the public test kits for SMART App Launch 2.2 and ONC (g)(10) observe, what the guide asks for beyond them, and the attacks
that must fail; for each, the tests that show it and how they came out. This page is written by `make conformance` from
`tests/conformance/requirements.yaml`, the names of the tests and their outcomes; a test fails when it is out of date. It is not a
certificate: the kits themselves were not run.
"""


@dataclass(frozen=True, slots=True, order=True)
class Check:
    """A test function.  ``path`` is relative to the project; ``absent``: it is marked, or could decide, not to run."""

    path: str
    name: str
    absent: bool = False

    @property
    def id(self) -> str:
        return f"{self.path}::{self.name}"

    @property
    def words(self) -> str:
        numbered = _NAME.fullmatch(self.name)
        text = numbered[3] if numbered else self.name.removeprefix("test_")
        return text.replace("__", ": ").replace("_", " ")

    def shows(self) -> tuple[tuple[str, int], ...]:
        """The requirements that its name says it shows, as (kind, number)."""
        numbered = _NAME.fullmatch(self.name)
        if numbered is None:
            return ()
        numbers = [int(number) for number in numbered[2].strip("_").split("_")]
        if numbered[1] == "smart":
            return tuple(("smart", number) for number in numbers)
        if numbers[:2] == [7, 8]:
            return ("groups", 7), ("groups", 8), *(("export", number) for number in numbers[2:])
        return tuple(("groups", number) for number in numbers)


def tests(root: Path = ROOT) -> tuple[Check, ...]:
    """Every test function below ``root``/tests, read and not imported."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        if "node_modules" not in path.parts:
            found += _tests(path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
    return tuple(found)


def _tests(path: str, module: ast.Module) -> list[Check]:
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    others = [node for node in module.body if isinstance(node, ast.Assign) and _mentions(node, {"pytestmark"})]
    marked = any(_mentions(node, _ABSENT) for node in others)
    return [Check(path, node.name, marked or _mentions(node, _ABSENT)) for node in functions]


def _mentions(node: ast.AST, names: set[str]) -> bool:
    inside = (one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in ast.walk(node))
    return any(name in names for name in inside)


def requirements(path: Path = REQUIREMENTS) -> dict[tuple[str, int], dict[str, str]]:
    """Each requirement's members by (kind, number), in the order of the page."""
    kept = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {("smart", number): one for section in kept["smart"] for number, one in section["items"].items()}
    return found | {(kind, number): one for kind in ("groups", "export", "others") for number, one in kept[kind].items()}


def faults(
    known: Mapping[tuple[str, int], Mapping[str, str]],
    all_tests: Iterable[Check],
    attacks: Mapping[str, tuple[str, ...]] = ATTACKS,
) -> list[str]:
    """What keeps the report from being whole: numbers without a test or a reason, tests of no number, tests that may not run."""
    listed = list(all_tests)
    shown = {key for test in listed for key in test.shows()}
    missing = [f"{kind} {number} has neither test nor reason" for kind, number in known if (kind, number) not in shown]
    found = [fault for fault in missing if "reason" not in known[(fault.split()[0], int(fault.split()[1]))]]
    found += [
        f"{test.id} shows {kind} {number}, which is not listed"
        for test in listed
        for kind, number in test.shows()
        if (kind, number) not in known
    ]
    starts = tuple(start for some in attacks.values() for start in some)
    found += [f"{test.id} may not run" for test in listed if test.absent and (test.shows() or test.name.startswith(starts))]
    found += [f"no test's name begins with {start}" for start in starts if not any(test.name.startswith(start) for test in listed)]
    alone = [test for test in listed if "tests/attacks/" in test.path and not test.name.startswith(starts)]
    return found + [f"{test.id} is in no line of the attacks" for test in alone]


def reported(all_tests: Iterable[Check]) -> list[Check]:
    """The tests that the report tells of."""
    starts = tuple(start for some in ATTACKS.values() for start in some)
    return [test for test in all_tests if test.shows() or test.name.startswith(starts)]


def page(all_tests: Iterable[Check], outcomes: Mapping[str, str]) -> str:
    """The page; ``outcomes`` by test id."""
    listed = sorted(all_tests)
    kept: dict[str, Any] = yaml.safe_load(REQUIREMENTS.read_text(encoding="utf-8"))
    by_number: dict[tuple[str, int], list[Check]] = {}
    for test in listed:
        for key in test.shows():
            by_number.setdefault(key, []).append(test)
    parts = [_INTRODUCTION, _summary(by_number, listed, outcomes)]
    for section in kept["smart"]:
        parts.append(f"## {section['title']}\n\n" + _table("smart", section["items"], by_number, outcomes))
    parts.append("## The groups of ONC (g)(10)\n\n" + _table("groups", kept["groups"], by_number, outcomes))
    parts.append("## Bulk export, groups 7 and 8\n\n" + _table("export", kept["export"], by_number, outcomes))
    parts.append("## Other suites\n\n" + _table("others", kept["others"], by_number, outcomes))
    attacks = {words: [test for test in listed if test.name.startswith(starts)] for words, starts in ATTACKS.items()}
    rows = [f"| {words} | {_result(found, outcomes)} | {_links(found)} |" for words, found in attacks.items()]
    parts.append("## Attacks\n\n" + "\n".join(["| attack | result | tests |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _summary(by_number: Mapping[tuple[str, int], list[Check]], listed: list[Check], outcomes: Mapping[str, str]) -> str:
    known = requirements()
    shown = sum(key in by_number and "reason" not in one for key, one in known.items())
    partly = sum(key in by_number and "reason" in one for key, one in known.items())
    told = reported(listed)
    passed = sum(outcomes.get(test.id) == "passed" for test in told)
    apart = len(known) - shown - partly
    counts = f"{len(known)} requirements: {shown} shown by tests, {partly} in part, {apart} not applicable."
    return f"{counts} {passed} of {len(told)} tests passed.\n"


def _table(
    kind: str, items: Mapping[int, Mapping[str, str]], by_number: Mapping[tuple[str, int], list[Check]], outcomes: Mapping[str, str]
) -> str:
    rows = ["| | what must be so | asked by | result | tests |", "|---|---|---|---|---|"]
    for number, one in items.items():
        found = by_number.get((kind, number), [])
        cell = "<br>".join(filter(None, [one.get("reason", ""), _links(found)]))
        result = _result(found, outcomes) if found else "not applicable"
        rows.append(f"| {number} | {one['must']} | {one['source']} | {result} | {cell} |")
    return "\n".join(rows) + "\n"


def _result(found: Iterable[Check], outcomes: Mapping[str, str]) -> str:
    """ "passed", or what else came out."""
    return ", ".join(sorted({outcomes.get(test.id, "not run") for test in found}))


def _links(found: Iterable[Check]) -> str:
    return "<br>".join(f"[{test.words}](../{test.path})" for test in found)
