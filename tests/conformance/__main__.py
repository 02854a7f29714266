"""``make conformance``: run the tests that the report tells of, and write it from their outcomes."""

from __future__ import annotations

import sys

import pytest

from tests.conformance import report


class Outcomes:
    """Notes how each test function came out; of its cases, the worst counts."""

    def __init__(self) -> None:
        self.noted: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        id = report.nodeid.partition("[")[0]
        if report.outcome != "passed":
            self.noted[id] = report.outcome
        elif report.when == "call":
            self.noted.setdefault(id, "passed")


def run() -> int:
    """Exit status: 0 if all passed and the report is whole."""
    found = report.tests()
    told, outcomes = report.reported(found), Outcomes()
    pytest.main(["-q", "-p", "no:cacheprovider", *(test.id for test in told)], plugins=[outcomes])
    report.PAGE.write_text(report.page(found, outcomes.noted), encoding="utf-8")
    faults = report.faults(report.requirements(), found)
    print(*faults, sep="\n")
    return int(bool(faults) or any(outcomes.noted.get(test.id) != "passed" for test in told))


if __name__ == "__main__":
    sys.exit(run())
