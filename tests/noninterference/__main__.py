"""Prints the table of planted leaks for docs/leaks.md: ``python -m tests.noninterference``.  Takes about ten minutes."""

from __future__ import annotations

from tests.noninterference.label_edges import EDGES
from tests.noninterference.planted_leaks import Leak
from tests.noninterference.planted_leaks_labels import LENDING_FAULTS
from tests.noninterference.planted_leaks_time import TIME_LEAKS
from tests.noninterference.test_planted_leaks import LEAKS, noticed_by, trace_that_notices


def _row(leak: Leak, by: str) -> str:
    return f"| {leak.channel} | {leak.name} | {by} |"


def main() -> None:
    print("| channel | planted leak | noticed by |\n|---|---|---|")
    for leak in sorted(LEAKS, key=lambda leak: ("CQRAWMTS".index(leak.channel[0]), leak.channel)):
        found = noticed_by(leak)
        print(_row(leak, f"{found.ask.kind}, {found.case.caller.name}" if found else "**nothing**"), flush=True)
    for leak in TIME_LEAKS:
        print(_row(leak, trace_that_notices(leak) or "**nothing**"), flush=True)
    for leak in LENDING_FAULTS:
        print(_row(leak, "a hidden write, then a read"))
    for edge in EDGES:
        print(f"| T12 | without {edge} | read, limited backend |")


if __name__ == "__main__":
    main()
