"""The chains of earlier versions of this program: one for each process, each line with the SHA-256 of the line before it.

They have no key.  Versions of before the keyed chain stored the last lines of a process twice if it was stopped at a certain moment:
an exact repetition of an earlier line of the same chain is counted apart.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Literal


class FormerChains:
    """Checks lines in their order.  It keeps one digest for each chain and, for the repetitions, one for each line."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._seen: set[bytes] = set()

    def add(self, text: bytes) -> Literal["fits", "repeated", "broken"]:
        """Whether this line follows the one before it in its chain."""
        digest = sha256(text)
        if digest.digest() in self._seen:
            return "repeated"
        self._seen.add(digest.digest())
        try:
            line = json.loads(text)
            chain, before = str(line["chain"]), line["before"]
        except (ValueError, KeyError, TypeError):
            return "broken"
        fits = before == self._last.get(chain, "")
        self._last[chain] = digest.hexdigest()
        return "fits" if fits else "broken"
