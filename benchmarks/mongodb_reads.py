"""What reading ahead, commands without cursors and counts by an index alone save: CPU time before and after, in turn, in one run.

Run ``python -m benchmarks.mongodb_reads``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from benchmarks.servers import Process
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from fhir_server.store.mongodb import commands, reader
from fhir_server.store.mongodb.reader import MongoSnapshot
from fhir_server.store.mongodb.translate import access_paths, disjoint_counts, either
from tests.mongo.mongod import ReplicaSet
from tests.served import Served, call
from tests.store.samples import clause, put, record, visibility

ROUNDS: Final = 20
EACH: Final = 25  # concurrent requests of one kind in a round
ROWS: Final = 4000  # of one patient, for the count

Measured = dict[str, list[tuple[float, float]]]


async def _without_command(*_: Any) -> None:
    """Answer as a command that the driver should repeat with a cursor."""


def _as_one_query(type: str, where: Any, seen: Visibility) -> tuple[dict[str, Any], ...]:
    return (either(*[path.query for path in access_paths(type, where, seen)]),)


@contextmanager
def _variant(ahead: bool = True, bare: bool = True, disjoint: bool = True) -> Iterator[None]:
    with (
        patch.object(MongoSnapshot, "expect_read", MongoSnapshot.expect_read if ahead else lambda *_: None),
        patch.object(commands, "_run", commands._run if bare else _without_command),
        patch.object(reader, "disjoint_counts", disjoint_counts if disjoint else _as_one_query),
    ):
        yield


VARIANTS: Final[dict[str, dict[str, bool]]] = {
    "before": {"ahead": False, "bare": False, "disjoint": False},
    "commands": {"ahead": False, "bare": True, "disjoint": False},
    "after": {"ahead": True, "bare": True, "disjoint": True},
}


def measure(served: Served, database: Process) -> Iterator[str]:
    """Yield a line for each kind of request and each variant: the lowest CPU microseconds of the server, the mean of the database."""
    own, seen = served.app_token("adult", "adult"), visibility(clause("p1"))
    store = served.parts.store

    async def fill() -> None:
        for start in range(0, ROWS, 500):
            await put(store, *(record(f"r{n}", "p1", class_id=n % 2) for n in range(start, start + 500)))

    async def count() -> None:
        async with store.snapshot() as snapshot:
            assert await snapshot.count("Observation", EVERYTHING, seen) == ROWS

    served.run(fill())

    def asking(path: str, query: str = "") -> Callable[[], None]:
        headers = {"authorization": f"Bearer {own}"}

        async def all_at_once() -> None:
            """Ask concurrently, so that the lines of the audit log share a commit as they do under load."""
            answers = await asyncio.gather(*(call(served.api, "GET", path, query.encode(), headers, b"") for _ in range(EACH)))
            if {answer.status for answer in answers} != {200}:
                raise RuntimeError(f"no answer to {path}")

        return lambda: served.run(all_at_once())

    kinds: tuple[tuple[str, int, Callable[[], None]], ...] = (
        ("read", EACH, asking("/Observation/adult-hemoglobin")),
        ("search", EACH, asking("/Observation", "category=laboratory")),
        (f"count of {ROWS}", 1, lambda: served.run(count())),
    )
    for kind, repeats, ask in kinds:
        measured: Measured = {}
        for _ in range(ROUNDS):
            for name, changes in VARIANTS.items():
                with _variant(**changes):
                    used, began = database.cpu(), time.process_time()
                    ask()
                    spent = (time.process_time() - began) / repeats * 1e6, (database.cpu() - used) / repeats * 1e6
                    measured.setdefault(name, []).append(spent)
        before = measured["before"]
        for name, costs in measured.items():
            server, mongod = min(cost for cost, _ in costs), sum(cost for _, cost in costs) / len(costs)
            ratios = server / min(cost for cost, _ in before), mongod / (sum(cost for _, cost in before) / len(before))
            yield f"{kind:14} {name:9} server {server:6.0f} us ({ratios[0]:.2f})  mongod {mongod:6.0f} us ({ratios[1]:.2f})"


def main() -> None:
    """Measure on a database of its own."""
    replica_set = ReplicaSet()
    try:
        served = Served(replica_set.url.replace("{name}", "benchmarks"))
        for line in measure(served, Process(replica_set.members[0].process.pid, "")):
            print(line, flush=True)
        served.close()
    finally:
        replica_set.stop()


if __name__ == "__main__":
    main()
