"""Measures writes by one and by two processes on one SQLite file: ``python -m benchmarks.two_writers [--seconds 3] [--rounds 3]``.

Each line is one process: its writes per second, the CPU microseconds of a write, the writes in a commit, and how long a commit waited
for the file.  All processes together have 16 lanes, each of which writes one small row after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from time import monotonic, process_time
from typing import Final

from fhir_server.store import Store, open_store
from fhir_server.store.sqlite.transaction import SqliteTransaction
from tests.store.samples import date, put, record, reference, string, token

LANES: Final = 16


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_writers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    context = get_context("spawn")
    for count in [1, 2] * options.rounds:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/fhir.sqlite"
            asyncio.run(open_store(url).close())
            start = context.Barrier(count)
            each = [(url, f"{number} of {count}", LANES // count, options.seconds, start) for number in range(1, count + 1)]
            processes = [context.Process(target=_measure, args=one) for one in each]
            for process in processes:
                process.start()
            for process in processes:
                process.join()


def _measure(url: str, name: str, lanes: int, seconds: float, start: Barrier) -> None:
    waits: list[float] = []
    begin = SqliteTransaction.begin

    def timed(self: SqliteTransaction) -> None:
        asked = monotonic()
        begin(self)
        waits.append(monotonic() - asked)

    SqliteTransaction.begin = timed  # type: ignore[method-assign]
    store = open_store(url)
    start.wait()
    used = process_time()
    written = asyncio.run(_write(store, name, lanes, monotonic() + seconds))
    cost = (process_time() - used) / written * 1e6
    print(
        f"process {name}: {written / seconds:6.0f} writes/s  {cost:5.0f} us each  {written / len(waits):5.1f} in a commit"
        f"  waited {sum(waits) / len(waits) * 1e3:6.2f} ms, at most {max(waits) * 1e3:6.1f} ms",
        flush=True,
    )


async def _write(store: Store, name: str, lanes: int, end: float) -> int:
    async def lane(lane: int) -> int:
        number = 0
        while monotonic() < end:
            number += 1
            entries = (token("code", f"c{number % 7}"), date("date", number), reference("subject", f"Patient/p{lane}"), string("text", "a"))
            await put(store, record(f"{name[0]}-{lane}-{number}", f"p{lane}", entries=entries))
        return number

    written = sum(await asyncio.gather(*(lane(one) for one in range(lanes))))
    await store.close()
    return written


if __name__ == "__main__":
    main()
