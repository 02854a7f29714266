"""docs/leaks.md lists every leak channel once, with tests that exist, and every planted leak with the test that finds it."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.noninterference.label_edges import EDGES
from tests.noninterference.planted_leaks_labels import LENDING_FAULTS
from tests.noninterference.planted_leaks_time import TIME_LEAKS
from tests.noninterference.test_planted_leaks import LEAKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/leaks.md").read_text(encoding="utf-8")
# Family -> number of channels.
CHANNELS = {"C": 12, "Q": 14, "R": 17, "A": 14, "W": 15, "M": 12, "T": 14, "S": 20}
STATES = ("tests", "cannot occur", "limit")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows(page: str) -> list[list[str]]:
    """The rows of the tables of channels: id, channel, what happens here, state, tests."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("|")]
    return [row for row in cells if re.fullmatch(r"[A-Z]\d\d", row[0]) and len(row) == 5]


def planted(page: str) -> list[tuple[str, str]]:
    """The rows of the table of planted leaks: channel and name."""
    return re.findall(r"^\| ([A-Z]\d\d) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)


@cache
def defined(path: str) -> frozenset[str]:
    file = ROOT / path
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE))


def expected_ids() -> list[str]:
    return [f"{family}{number:02}" for family, most in CHANNELS.items() for number in range(1, most + 1)]


def faults(page: str) -> list[str]:
    """The errors of a page, as messages."""
    listed = Counter(row[0] for row in rows(page))
    found = [f"{id} appears {listed[id]} times" for id in expected_ids() if listed[id] != 1]
    found += [f"{id} is no channel" for id in sorted(set(listed) - set(expected_ids()))]
    for id, channel, here, state, shown in rows(page):
        if state not in STATES:
            found.append(f"{id} is {state!r}")
        if not channel or not here or not NAMED.search(shown):
            found.append(f"{id} has an empty cell or no test")
    found += [f"{path}::{name} does not exist" for path, name in dict.fromkeys(NAMED.findall(page)) if name not in defined(path)]
    counted = Counter(row[3] for row in rows(page))
    total = ", ".join(f"{counted[state]} {state}" for state in STATES)
    if f"Of {len(rows(page))} channels: {total}." not in " ".join(page.split()):
        found.append("the total is wrong")
    return found


def test_every_leak_channel_is_listed_with_existing_tests() -> None:
    assert faults(PAGE) == []
    assert sum(CHANNELS.values()) == len(expected_ids()) == 118


def test_every_planted_leak_is_listed_with_its_channel() -> None:
    made = [
        *((leak.channel, leak.name) for leak in (*LEAKS, *TIME_LEAKS, *LENDING_FAULTS)),
        *(("T12", f"without {edge}") for edge in EDGES),
    ]
    assert Counter(planted(PAGE)) == Counter(made)
    assert len(made) >= 90
    assert {channel for channel, _ in made} <= set(expected_ids())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda page: "\n".join(line for line in page.splitlines() if not line.startswith("| C05 |")), "C05 appears 0 times"),
        (lambda page: page + "\n| C01 | a | b | tests | `tests/project/test_leaks_page.py::test_x` |", "C01 appears 2 times"),
        (lambda page: page + "\n| Z01 | a | b | tests | `tests/project/test_leaks_page.py::faults` |", "Z01 is no channel"),
        (lambda page: page.replace("| cannot occur |", "| fine |", 1), "C07 is 'fine'"),
        (
            lambda page: page + "\n`tests/project/test_project.py::test_made_up`",
            "tests/project/test_project.py::test_made_up does not exist",
        ),
    ],
)
def test_leaks_page_check_detects_planted_faults(change: object, fault: str) -> None:
    assert callable(change)
    assert fault in faults(change(PAGE))


def test_leaks_page_check_detects_a_wrong_total() -> None:
    assert faults(re.sub(r"\d+ cannot occur,", "99 cannot occur,", PAGE)) == ["the total is wrong"]
