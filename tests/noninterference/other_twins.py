"""Runs twin worlds of their own kind, beside those of :mod:`tests.noninterference.test_noninterference`, and plants leaks in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.noninterference import comparison
from tests.noninterference.case_generator import case
from tests.noninterference.comparison import Tally
from tests.noninterference.oracle import CALLERS
from tests.noninterference.planted_leaks import Patch
from tests.noninterference.test_noninterference import capability

MEMORY = ("memory:", "memory:")


@dataclass(frozen=True)
class OtherTwins:
    """``twins`` makes a pair of a case, the URLs of its stores, and a tally.  ``control``: whether its control runs before."""

    twins: Callable[..., Any]
    control: bool = False

    def found(self, seed: int, asks: int, urls: tuple[str, str] = MEMORY, tally: Tally | None = None) -> comparison.Leak | None:
        """The first leak of a case, if there is one."""
        stated = capability()

        async def run() -> comparison.Leak | None:
            twins = self.twins(case(seed), urls, tally)
            await twins.open()
            try:
                if self.control:
                    await twins.control()
                await twins.run(stated, asks)
            except comparison.Leak as leak:
                return leak
            finally:
                await twins.close()
            return None

        return asyncio.run(run())

    def require_silence(self, seed: int, asks: int, urls: tuple[str, str] = MEMORY, tally: Tally | None = None) -> None:
        if (leak := self.found(seed, asks, urls, tally)) is not None:
            raise leak

    def require_noticed(self, plant: Callable[[Patch], None], asks: int, cases: int, first: int = 0) -> None:
        """Require that a planted leak is noticed in one of so many cases of each caller, and not without the leak.

        The case ``first`` is tried first.
        """
        for seed in dict.fromkeys((first, *range(cases * len(CALLERS)))):
            with pytest.MonkeyPatch.context() as patch:
                plant(patch)
                leak = self.found(seed, asks)
            if leak is not None:
                assert self.found(seed, asks) is None, "It is noticed without the leak, too."
                return
        raise AssertionError(f"No request in {cases} cases of each caller noticed it.")
