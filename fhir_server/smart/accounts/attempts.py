"""Limits the attempts to guess a password or a code.

An attempt takes one of a fixed number of slots before the secret is checked, so parallel guesses cannot exceed the limit.
A slot is free again after its window (15 minutes, if not said otherwise), or as soon as the caller releases it because the secret
was right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_server.smart.core.context import MINUTE, digest
from fhir_server.store import KeyValueStore

WINDOW: Final = 15 * MINUTE
PER_ACCOUNT: Final = 5
_KIND: Final = "attempt"


@dataclass(frozen=True, slots=True)
class AttemptLimit:
    """At most ``most`` attempts in ``window`` microseconds against the target ``name``, for example ``user:adult``.

    ``username``  the account whose unlocking releases the slots; "" for none
    """

    name: str
    most: int = PER_ACCOUNT
    username: str = ""
    window: int = WINDOW

    async def take(self, values: KeyValueStore, now: int) -> str | None:
        """Take a slot in one atomic step and return its key. None means that the limit is reached."""
        for slot in self._slots():
            if await values.get(_KIND, slot, now) is not None:
                continue  # a refused attempt writes nothing
            if await values.put_if_absent(_KIND, slot, b"", now + self.window, family(self.username) if self.username else ""):
                return slot
        return None

    async def reset(self, values: KeyValueStore, now: int) -> None:
        """Release all slots of this target."""
        for slot in self._slots():
            await release(values, slot, now)

    def _slots(self) -> list[str]:
        return [f"{digest(self.name)}:{number}" for number in range(self.most)]


def family(username: str) -> str:
    """Return the key family of the attempts against an account."""
    return f"attempts:{digest(username)}"


async def release(values: KeyValueStore, slot: str, now: int) -> None:
    """Release one slot that :meth:`AttemptLimit.take` returned."""
    await values.pop(_KIND, slot, now)
