"""How often one address may have this process keep something for it, before anybody has signed in."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

_REMEMBERED: Final = 10_000  # addresses


class Limit:
    """At most ``most`` in any stretch of ``window`` microseconds, for each name."""

    def __init__(self, most: int, window: int) -> None:
        self._most = most
        self._window = window
        self._seen: OrderedDict[str, deque[int]] = OrderedDict()

    def allows(self, name: str, now: int) -> bool:
        """Whether one more is within the limit; if so, it counts."""
        seen = self._seen.setdefault(name, deque(maxlen=self._most))
        self._seen.move_to_end(name)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if len(seen) == self._most and now < seen[0] + self._window:
            return False
        seen.append(now)
        return True
