"""Results as the tables of ``docs/performance.md``; the words around them stand in ``performance.md`` beside this file."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import seed
from benchmarks.measure import Figures, Result
from benchmarks.stores import ROOT

PAGE: Final = ROOT / "docs" / "performance.md"
_WORDS: Final = Path(__file__).with_name("performance.md")
_HEAD: Final = "| operation | CPU µs | aim µs | control µs | ratio | policy on / off | req/s | p50 ms | p99 ms |"


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    now = datetime.now(UTC)
    watched = f"{len(seed.WATCHED)} patients with {seed.WATCHED_ROWS:,} resources each, and others with {seed.CROWD_ROWS}"
    words = _WORDS.read_text(encoding="utf-8")
    return words.format(
        day=now.date().isoformat(), machine=_machine(), watched=watched, tables=tables(results), missed=_missed(results)
    )  # fmt: skip


def tables(results: Sequence[Result]) -> str:
    """The tables of all results, and what only shows between two of them."""
    parts = [_table(result) for result in results]
    if len(results) > 1:
        parts.append(_between(results[0], results[-1]))
    return "\n".join(parts)


def _table(result: Result) -> str:
    rule = "|---" + "|---:" * (_HEAD.count("|") - 2) + "|"
    lines = [f"### {result.rows:,} resources stored", "", _HEAD, rule, *(_line(one) for one in result.figures), ""]
    idle, after = result.idle, result.after
    lines.append(
        f"Memory of the one worker, resident: idle {idle[0]:.0f} MB ({idle[1]:.0f} MB without mapped files), after all of the above "
        f"{after[0]:.0f} MB ({after[1]:.0f} MB; the rest is pages of the store, which the system takes back as it needs them).\n"
    )
    return "\n".join(lines)


def _line(one: Figures) -> str:
    aim = "" if one.aim is None else f"{one.aim:,.0f}"
    policy = "" if one.open is None else f"{one.cpu / one.open:.2f}"
    cells = (
        one.name, f"{one.cpu:,.0f} (+{one.spread:.0%})", aim, f"{one.control:,.0f}", f"{one.cpu / one.control:.1f}", policy,
        f"{one.rate:,.0f}", f"{one.p50:.1f}", f"{one.p99:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _missed(results: Sequence[Result]) -> str:
    """The aims that were not met in this run, one a line."""
    lines = [
        f"- {one.name}, {result.rows:,} stored: {one.cpu:,.0f} µs against {one.aim:,.0f}; the control took {one.control:,.0f}."
        for result in results
        for one in result.figures
        if one.aim is not None and one.cpu > one.aim
    ]
    lines += [
        f"- {one.name}, {result.rows:,} stored: policy in force costs {one.cpu / one.open - 1:.0%} over policy off, against 10%."
        for result in results
        for one in result.figures
        if one.open is not None and one.cpu > 1.1 * one.open
    ]
    return "\n".join(lines) or "Every aim was met in this run."


def _between(small: Result, large: Result) -> str:
    lines = [f"### {large.rows:,} resources against {small.rows:,}", "", "| operation | cost, as a multiple |", "|---|---:|"]
    for one, other in zip(small.figures, large.figures, strict=True):
        ratio = (other.cpu / other.control) / (one.cpu / one.control)
        lines.append(f"| {one.name} | {ratio:.2f} |")
    return "\n".join([*lines, ""])


def _machine() -> str:
    model = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores ({model.strip() or platform.machine()}), Python {platform.python_version()}"
