"""``fhir-server purge-history``: removes earlier versions of resources by age.

First the horizon moves, for all callers at once: versions from before it, as each caller counts them, are gone from then on, except for
the newest one.  Then what is stored of them is removed, in steps, while servers run.  Some stored versions stay unseen, because labels
rest on them (:mod:`fhir_server.store.version_purge`, and :func:`keeps_bodies`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fhir_server.clock import MAX_INSTANT
from fhir_server.consent.departments import TYPES as DEPARTMENTS
from fhir_server.resources import catalog
from fhir_server.store import Store, Transaction
from fhir_server.store.version_history import HORIZON

_STEP: Final = 50  # resources in one transaction
# The lines of a Claim lend their labels to the lines of its ClaimResponses, those of earlier versions too.
_LEND_PARTS: Final = frozenset({"Claim"})


class HistoryPurge(NamedTuple):
    """How many versions of how many resources were removed."""

    versions: int
    resources: int


def keeps_bodies(type: str) -> bool:
    """Whether resources of this type lend what is read from the bodies of all their versions, so that these must stay."""
    declared = catalog().get(type)
    return type in DEPARTMENTS or type in _LEND_PARTS or (declared is not None and bool(declared.inherits_from_referrers))


async def purge_history(store: Store, before: int) -> HistoryPurge:
    """Remove what is from before an instant.  Safe to interrupt and to start again; never moves the horizon back."""
    async with store.snapshot() as snapshot:
        horizon = max(before, await snapshot.history_horizon())
    await store.key_values.put(HORIZON, "", str(horizon).encode(), MAX_INSTANT)
    versions = resources = 0
    after = ("", "")
    while True:
        async with store.snapshot() as snapshot:
            names = await snapshot.with_past_unfiltered(after, _STEP)
        if not names:
            return HistoryPurge(versions, resources)
        after = names[-1]
        chosen = [name for name in names if not keeps_bodies(name[0])]

        async def step(transaction: Transaction, chosen: list[tuple[str, str]] = chosen) -> list[int]:
            return [await transaction.purge_versions_unfiltered(*name, horizon) for name in chosen]

        counts = await store.write(step)
        versions += sum(counts)
        resources += sum(count > 0 for count in counts)
