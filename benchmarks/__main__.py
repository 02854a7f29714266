"""``python -m benchmarks``: measure on a small and a large store, and write the table into ``docs/performance.md``."""

from __future__ import annotations

import argparse
import sys

from benchmarks import report
from benchmarks.measure import measure
from benchmarks.store_comparison import compare
from benchmarks.token_check import token_check

SMALL = 10_000
LARGE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help=f"size of a store to measure on; default {SMALL} and {LARGE}")
    parser.add_argument("--quick", action="store_true", help="one short round on the small store; writes nothing")
    asked = parser.parse_args()
    sizes = asked.rows or ([SMALL] if asked.quick else [SMALL, LARGE])
    results = [measure(rows, *((1, 2) if asked.quick else (3, 4))) for rows in sizes]
    print(report.tables(results))
    comparison, check = compare(sizes[0], *((1, 2) if asked.quick else (3, 4))), token_check(sizes[0])
    print(report.store_table(comparison), report.token_check(check, results[0]), sep="\n\n")
    if not asked.quick and asked.rows is None:
        report.PAGE.write_text(report.page(results, comparison, check), encoding="utf-8")
        print(f"written to {report.PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
