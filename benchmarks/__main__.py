"""``python -m benchmarks``: benchmark a small and a large store, and write the results into ``docs/performance.md``."""

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
    parser.add_argument(
        "--rows", type=int, action="append", help=f"number of resources in the store; may be repeated; default {SMALL} and {LARGE}"
    )
    parser.add_argument("--quick", action="store_true", help="one short round on the small store, without writing the page")
    options = parser.parse_args()
    sizes = options.rows or ([SMALL] if options.quick else [SMALL, LARGE])
    results = [measure(rows, *((1, 2) if options.quick else (3, 4))) for rows in sizes]
    print(report.tables(results))
    comparison, check = compare(sizes[0], *((1, 2) if options.quick else (3, 4))), token_check(sizes[0])
    print(report.store_table(comparison), report.token_check(check, results[0]), sep="\n\n")
    if not options.quick and options.rows is None:
        report.PAGE.write_text(report.page(results, comparison, check), encoding="utf-8")
        print(f"Wrote {report.PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
