"""Writes the results as ``docs/performance.md``, from the template ``performance.md`` in this folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import seed
from benchmarks.measure import BenchmarkResult, OperationCost
from benchmarks.store_comparison import CPU_PERCENT, Comparison
from benchmarks.stores import ROOT
from benchmarks.token_check import TokenCheckCost

PAGE: Final = ROOT / "docs" / "performance.md"
_WORDS: Final = Path(__file__).with_name("performance.md")
_HEAD: Final = "| operation | CPU µs | target µs | control µs | ratio | policy on / off | req/s | p50 ms | p99 ms |"


def page(results: Sequence[BenchmarkResult], comparison: Comparison, check: TokenCheckCost) -> str:
    """Return the whole page."""
    now = datetime.now(UTC)
    data = f"{len(seed.WATCHED_PATIENTS)} patients with {seed.WATCHED_ROWS:,} resources each, and others with {seed.CROWD_ROWS}"
    words = _WORDS.read_text(encoding="utf-8")
    return words.format(
        day=now.date().isoformat(), machine=_machine(), watched=data, tables=tables(results),
        missed=_missed_targets(results), beside=store_table(comparison), check=token_check(check, results[0]),
    )  # fmt: skip


def tables(results: Sequence[BenchmarkResult]) -> str:
    """Return the tables of all results, and the comparison of the smallest with the largest store."""
    parts = [_table(result) for result in results]
    if len(results) > 1:
        parts.append(_size_comparison(results[0], results[-1]))
    return "\n".join(parts)


def store_table(comparison: Comparison) -> str:
    """Return the table of both stores, and the table of one and two server processes."""
    head = "| operation | SQLite, CPU µs | MongoDB, CPU µs | and mongod's | SQLite, req/s | MongoDB, req/s | SQLite, p50 | MongoDB, p50 |"
    lines = [head, "|---" + "|---:" * 7 + "|"]
    for one in comparison.costs:
        cells = (
            one.name, f"{one.sqlite:,.0f}", f"{one.mongodb:,.0f}", f"{one.mongod:,.0f}", *(f"{rate:,.0f}" for rate in one.rates),
            *(f"{p50:.1f} ms" for p50 in one.p50),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    widths = ("one process, req/s", "two", "gain", f"one of {CPU_PERCENT} % of a core", "two", "gain")
    lines += ["", "| operation | store | " + " | ".join(widths) + " |", "|---|---" + "|---:" * len(widths) + "|"]
    for wide in comparison.scaling:
        rates = [f"{one:,.0f} | {two:,.0f} | {two / one:.2f}" for one, two in (wide.free, wide.limited)]
        lines.append(f"| {wide.name} | {wide.store} | {' | '.join(rates)} |")
    return "\n".join(lines)


def token_check(check: TokenCheckCost, result: BenchmarkResult) -> str:
    """Return the share of the token check in a read, in the process and over HTTP."""
    whole = next(one.cpu for one in result.figures if one.name == "read")
    return (
        "A read that looks up its token and checks whether the data behind the caller's permissions has changed: "
        f"{check.with_check:.1f} µs. "
        f"The same read with the permissions given: {check.without_check:.1f} µs. The check adds {check.added:.0%} to a read within the "
        f"process, and {check.share(whole):.0%} to a read over HTTP ({whole:.0f} µs, see above)."
    )


def _table(result: BenchmarkResult) -> str:
    rule = "|---" + "|---:" * (_HEAD.count("|") - 2) + "|"
    lines = [f"### {result.rows:,} resources stored", "", _HEAD, rule, *(_line(one) for one in result.figures), ""]
    idle, after = result.idle, result.after
    lines.append(
        f"Resident memory of the worker: idle {idle[0]:.0f} MB ({idle[1]:.0f} MB without mapped files), after all operations above "
        f"{after[0]:.0f} MB ({after[1]:.0f} MB without mapped files, which the system reclaims when it needs memory).\n"
    )
    return "\n".join(lines)


def _line(one: OperationCost) -> str:
    target = "" if one.target is None else f"{one.target:,.0f}"
    policy = "" if one.unrestricted is None else f"{one.cpu / one.unrestricted:.2f}"
    cells = (
        one.name, f"{one.cpu:,.0f} (+{one.spread:.0%})", target, f"{one.control:,.0f}", f"{one.cpu / one.control:.1f}", policy,
        f"{one.rate:,.0f}", f"{one.p50:.1f}", f"{one.p99:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _missed_targets(results: Sequence[BenchmarkResult]) -> str:
    """Return the targets that this run missed, one per line."""
    lines = [
        f"- {one.name}, {result.rows:,} stored: {one.cpu:,.0f} µs, target {one.target:,.0f}; control {one.control:,.0f}."
        for result in results
        for one in result.figures
        if one.target is not None and one.cpu > one.target
    ]
    lines += [
        f"- {one.name}, {result.rows:,} stored: the policy adds {one.cpu / one.unrestricted - 1:.0%}, target 10%."
        for result in results
        for one in result.figures
        if one.unrestricted is not None and one.cpu > 1.1 * one.unrestricted
    ]
    return "\n".join(lines) or "This run met every target."


def _size_comparison(small: BenchmarkResult, large: BenchmarkResult) -> str:
    lines = [f"### {large.rows:,} resources compared with {small.rows:,}", "", "| operation | cost ratio |", "|---|---:|"]
    for one, other in zip(small.figures, large.figures, strict=True):
        ratio = (other.cpu / other.control) / (one.cpu / one.control)
        lines.append(f"| {one.name} | {ratio:.2f} |")
    return "\n".join([*lines, ""])


def _machine() -> str:
    model = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores ({model.strip() or platform.machine()}), Python {platform.python_version()}"
