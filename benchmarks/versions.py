"""Measures what a resource with many versions costs: ``python -m benchmarks.versions [--versions 2000]``.

An Observation is replaced until it has so many versions.  The program prints the CPU time of an update, a read, a version read
and a page of the history, for a patient's app, with few versions and with all, and how much the store grew by a version.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from time import process_time_ns
from typing import Any, Final

from tests.served import Served

ROW: Final = "Observation/adult-hemoglobin"
_FEW: Final = 50
_SAMPLES: Final = 30


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("--versions", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fhir.sqlite"
        served = Served(f"sqlite:///{file}")
        body = served.get(served.token(), ROW).json
        few, size = _grown(served, body, 1, _FEW), _bytes(file)
        many = _grown(served, body, _FEW, options.versions)
        grown = (_bytes(file) - size) / (options.versions - _FEW)
        served.close()
    print(f"{'':24} {_FEW:>10,} versions {options.versions:>10,} versions")
    for name in few:
        print(f"{name:24} {few[name]:16.2f} ms {many[name]:16.2f} ms")
    print(f"Each version added {grown:,.0f} bytes.")


def _grown(served: Served, body: dict[str, Any], first: int, last: int) -> dict[str, float]:
    """Write versions from the one after ``first`` to ``last``; return milliseconds by request."""
    feed, app = served.token(), served.app_token("adult", "adult")
    numbers = iter(range(first + 1, last + 1))

    def update() -> None:
        number = next(numbers)
        assert served.request(feed, "PUT", ROW, body={**body, "note": [{"text": f"note {number}"}]}).status == 200

    for _ in range(last - first - _SAMPLES):
        update()
    updated = _median(update)
    requests = {"read": ROW, "history, newest page": f"{ROW}/_history", "vread of version 1": f"{ROW}/_history/1"}
    requests["vread in the middle"] = f"{ROW}/_history/{last // 2}"
    return {"update": updated} | {name: _median(lambda path=path: served.get(app, path)) for name, path in requests.items()}  # type: ignore[misc]


def _median(request: Callable[[], Any]) -> float:
    samples = []
    for _ in range(_SAMPLES):
        began = process_time_ns()
        request()
        samples.append((process_time_ns() - began) / 1e6)
    return median(samples)


def _bytes(file: Path) -> int:
    """The size of the file with what is in the write-ahead log."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


if __name__ == "__main__":
    main()
