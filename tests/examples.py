"""How many examples a property test tries: fewer where the slow tests are left out, as ``make test`` does."""

from __future__ import annotations

_few = False


def try_few(few: bool) -> None:
    """Choose for this process, before the tests are collected."""
    global _few
    _few = few


def examples(all: int, few: int) -> int:
    return few if _few else all
