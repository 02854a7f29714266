"""docs/security.md lists every ASVS requirement in scope once, with its state and existing tests."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
STATES = ("met", "partly", "not met", "n/a")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
OTHER = re.compile(r"\b(Document|Setting): \S")
NUMBER = re.compile(r"\d+\.\d+\.\d+")


class Line(NamedTuple):
    number: str
    requirement: str
    state: str
    how: str
    evidence: str


def lines(page: str) -> list[Line]:
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in page.splitlines() if row.startswith("|")]
    return [Line(*row) for row in cells if NUMBER.fullmatch(row[0])]


def in_scope() -> list[str]:
    lines = (ROOT / "tests/project/asvs-5.0.0.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if not line.startswith("#")]


@cache
def defined(path: str) -> frozenset[str]:
    file = ROOT / path
    return frozenset(re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)) if file.is_file() else frozenset()


def faults(page: str) -> list[str]:
    """The errors of a page, as messages."""
    found = [f"{path}::{name} does not exist" for path, name in TEST.findall(page) if name not in defined(path)]
    numbers = [line.number for line in lines(page)]
    found += [f"{number} appears {numbers.count(number)} times" for number in in_scope() if numbers.count(number) != 1]
    found += [f"{number} is not in scope" for number in numbers if number not in in_scope()]
    for line in lines(page):
        if line.state not in STATES:
            found.append(f"{line.number} is {line.state!r}")
        if line.state == "met" and not TEST.search(line.evidence) and not OTHER.search(line.evidence):
            found.append(f"{line.number} has no evidence")
        if not line.how or not line.requirement:
            found.append(f"{line.number} has an empty cell")
    counted = Counter(line.state for line in lines(page))
    summary = re.search(r"Of (\d+) requirements: (\d+) met, (\d+) partly, (\d+) not met, (\d+) n/a\.", " ".join(page.split()))
    if summary is None or [int(number) for number in summary.groups()] != [len(numbers), *(counted[state] for state in STATES)]:
        found.append("the total is wrong")
    return found


def test_every_asvs_requirement_appears_once_with_evidence() -> None:
    assert faults(PAGE) == []
    assert len(in_scope()) == len(set(in_scope())) == 125


def without_line(page: str, number: str) -> str:
    return "\n".join(row for row in page.splitlines() if not row.startswith(f"| {number} |"))


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (without_line(PAGE, "10.4.1"), "10.4.1 appears 0 times"),
        (PAGE + "\n| 10.4.1 | twice | n/a | why | |", "10.4.1 appears 2 times"),
        (PAGE + "\n| 99.9.9 | unknown | n/a | why | |", "99.9.9 is not in scope"),
        (without_line(PAGE, "3.2.1") + "\n| 3.2.1 | requirement | met | somehow | trust us |", "3.2.1 has no evidence"),
        (without_line(PAGE, "3.2.1") + "\n| 3.2.1 | requirement | fine | somehow | Setting: yes |", "3.2.1 is 'fine'"),
        (PAGE + "\n`tests/project/test_project.py::test_made_up`", "tests/project/test_project.py::test_made_up does not exist"),
    ],
)
def test_security_page_check_detects_planted_faults(planted: str, fault: str) -> None:
    assert [found for found in faults(planted) if found != "the total is wrong"] == [fault]


def test_security_page_check_detects_a_wrong_total() -> None:
    assert faults(re.sub(r"\d+\s+not\s+met,", "99 not met,", PAGE)) == ["the total is wrong"]
