"""``make conformance``: runs the tests of the conformance report and writes the report from their outcomes."""

from __future__ import annotations

import sys

import pytest

from tests.conformance import features, report


class Outcomes:
    """Collects the outcome of each test function.  A parametrized test has its worst case's outcome."""

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        id = report.nodeid.partition("[")[0]
        if report.outcome != "passed":
            self.by_test[id] = report.outcome
        elif report.when == "call":
            self.by_test.setdefault(id, "passed")


def run() -> int:
    """Write the report and return the exit status: 0 if all tests passed and the report is complete."""
    tests = report.tests()
    named, outcomes = report.shown_by(tests), Outcomes()
    pytest.main(["-q", "-p", "no:cacheprovider", *named], plugins=[outcomes])
    report.PAGE.write_text(report.page(tests, outcomes.by_test), encoding="utf-8")
    faults = report.faults(report.requirements(), tests)
    faults += features.faults(features.sections(), {test.id: test.may_skip for test in tests})
    print(*faults, sep="\n")
    return int(bool(faults) or any(outcomes.by_test.get(id) != "passed" for id in named))


if __name__ == "__main__":
    sys.exit(run())
