"""docs/conformance.md lists every requirement with its current tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import report
from tests.conformance.__main__ import Outcomes
from tests.conformance.report import ReportedTest

KNOWN = {("smart", 1): {"must": "x", "source": "y", "reason": "z"}, ("smart", 2): {"must": "x", "source": "y"}}
SHOWN = [ReportedTest("tests/x/test_x.py", "test_smart_2_it_is_so")]
ATTACKS = {"x": ("test_evil_",)}
WHOLE = [ReportedTest("tests/attacks/test_x.py", "test_evil_fails")]


def test_every_requirement_has_a_running_test_or_a_reason() -> None:
    assert report.faults(report.requirements(), report.tests()) == []


def test_requirement_numbers_are_complete() -> None:
    listed = report.requirements()
    assert [number for kind, number in listed if kind == "smart"] == list(range(1, 115))
    assert [number for kind, number in listed if kind == "groups"] == [1, 2, 3, 7, 8, 9, 10, 11, 12]
    assert [number for kind, number in listed if kind == "export"] == list(range(1, 11))
    assert all(one["must"] and one["source"] for one in listed.values())


def test_conformance_page_matches_the_test_names() -> None:
    """Compares the names only: the tests themselves are part of this run."""
    found = report.tests()
    passed = dict.fromkeys(report.shown_by(found), "passed")
    assert report.page(found, passed) == report.PAGE.read_text(encoding="utf-8"), "run make conformance to update the page"


@pytest.mark.parametrize(
    ("tests", "fault"),
    [
        ([], "smart 2 has neither test nor reason"),
        ([*SHOWN, ReportedTest("tests/x/test_x.py", "test_smart_3_it_is_so")], "tests/x/test_x.py::test_smart_3_it_is_so shows smart 3"),
        ([ReportedTest("tests/x/test_x.py", "test_smart_2_it_is_so", True)], "tests/x/test_x.py::test_smart_2_it_is_so can skip"),
        (
            [*SHOWN, ReportedTest("tests/attacks/test_x.py", "test_something")],
            "tests/attacks/test_x.py::test_something belongs to no listed attack",
        ),
    ],
)
def test_report_detects_each_fault(tests: list[ReportedTest], fault: str) -> None:
    assert report.faults(KNOWN, SHOWN + WHOLE, ATTACKS) == []  # the control
    assert [one[: len(fault)] for one in report.faults(KNOWN, tests + WHOLE, ATTACKS)] == [fault]


def test_report_detects_an_attack_without_test() -> None:
    assert report.faults(KNOWN, SHOWN, ATTACKS) == ["no test's name begins with test_evil_"]


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("def test_smart_2_x(): pass", False),
        ("@pytest.mark.skip\ndef test_smart_2_x(): pass", True),
        ("@pytest.mark.skipif(True, reason='x')\ndef test_smart_2_x(): pass", True),
        ("@mark.xfail\ndef test_smart_2_x(): pass", True),
        ("def test_smart_2_x():\n    if a: pytest.skip('x')", True),
        ("pytestmark = pytest.mark.skip\ndef test_smart_2_x(): pass", True),
        ("pytestmark = pytest.mark.usefixtures('a')\ndef test_smart_2_x(): pass", False),
    ],
)
def test_report_detects_skippable_tests_in_source(tmp_path: Path, text: str, absent: bool) -> None:
    folder = tmp_path / "tests" / "x"
    folder.mkdir(parents=True)
    (folder / "test_x.py").write_text(text)
    assert report.tests(tmp_path) == (ReportedTest("tests/x/test_x.py", "test_smart_2_x", absent),)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test_smart_33_39_40_a_client", [("smart", 33), ("smart", 39), ("smart", 40)]),
        ("test_smart_04_05_x", [("smart", 4), ("smart", 5)]),
        ("test_group_3_x", [("groups", 3)]),
        ("test_group_7_8_06_07_x", [("groups", 7), ("groups", 8), ("export", 6), ("export", 7)]),
        ("test_smart_ssrf_x", []),
        ("test_something_3_x", []),
    ],
)
def test_requirement_numbers_are_parsed_from_names(name: str, shown: list[tuple[str, int]]) -> None:
    assert list(ReportedTest("x", name).requirements()) == shown


def test_worst_case_decides_a_parametrized_test() -> None:
    outcomes = Outcomes()
    for id, outcome, when in (("a[1]", "failed", "call"), ("a[2]", "passed", "call"), ("b", "passed", "setup"), ("c", "passed", "call")):
        outcomes.pytest_runtest_logreport(pytest.TestReport(id, ("", None, ""), {}, outcome, None, when))  # type: ignore[arg-type]
    assert outcomes.by_test == {"a": "failed", "c": "passed"}
    assert "| 2 | x | y | failed |" in report._table("smart", {2: KNOWN["smart", 2]}, {("smart", 2): SHOWN}, {SHOWN[0].id: "failed"})
