"""Measures a page of one patient's results by the length of the record: ``python -m benchmarks.long_records [--mongodb]``.

For records of 100, 1,000 and 10,000 Observations the program prints the milliseconds of CPU time that the server's process takes
for one page of 20 (the median), and on MongoDB those of the database (the mean).  A page should cost what it holds, whatever the
record holds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from statistics import median
from time import process_time_ns
from typing import Any, Final

from benchmarks.servers import Process
from tests.mongo.mongod import ReplicaSet
from tests.served import Served

LENGTHS: Final = (100, 1_000, 10_000)
SHAPES: Final = (
    "",
    "_sort=-date",
    "_sort=-_lastUpdated",
    "_sort=-date&code=http://loinc.org|718-7",
    "_sort=-date&_include=Observation:subject",
    "code=http://loinc.org|718-7",
    "_sort=date",
)
_SAMPLES: Final = 30
_PORTION: Final = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_records", description=__doc__)
    parser.add_argument("--mongodb", action="store_true", help="measure on a MongoDB that the program starts, not on a SQLite file")
    with _mongodb() if parser.parse_args().mongodb else _sqlite() as (served, database):
        for length in LENGTHS:
            _fill(served, f"p{length}", length)
        print(f"{'':58}" + "".join(f"{length:>16,}" for length in LENGTHS))
        for shape in SHAPES:
            costs = [_milliseconds(served, f"Observation?patient=p{length}&_count=20&{shape}", database) for length in LENGTHS]
            print(f"{shape or 'in the order of rows':58}" + "".join(f"{cost:>16}" for cost in costs), flush=True)


@contextmanager
def _sqlite() -> Iterator[tuple[Served, None]]:
    with tempfile.TemporaryDirectory() as folder:
        served = Served(f"sqlite:///{folder}/fhir.sqlite", seeds=False)
        yield served, None
        served.close()


@contextmanager
def _mongodb() -> Iterator[tuple[Served, Process]]:
    replica_set = ReplicaSet()
    try:
        served = Served(replica_set.url.replace("{name}", "benchmarks"), seeds=False)
        yield served, Process(replica_set.members[0].process.pid, "")
        served.close()
    finally:
        replica_set.stop()


def _fill(served: Served, patient: str, length: int) -> None:
    token = served.token()
    assert served.request(token, "PUT", f"Patient/{patient}", body={"resourceType": "Patient", "id": patient}).status == 201
    for start in range(0, length, _PORTION):
        results = [_result(patient, number) for number in range(start, min(length, start + _PORTION))]
        entries = [{"request": {"method": "POST", "url": "Observation"}, "resource": result} for result in results]
        assert served.request(token, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries}).status == 200


def _result(patient: str, number: int) -> dict[str, Any]:
    coding = {"system": "http://loinc.org", "code": "718-7" if number % 2 else "2339-0"}
    day = date(2000, 1, 1) + timedelta(days=number * 7919 % 9000)
    subject = {"reference": f"Patient/{patient}"}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [coding]},
        "subject": subject,
        "effectiveDateTime": str(day),
    }


def _milliseconds(served: Served, path: str, database: Process | None) -> str:
    token, samples = served.token(), []
    used = database.cpu() if database else 0.0
    for _ in range(_SAMPLES):
        began = process_time_ns()
        assert served.get(token, path).status == 200
        samples.append((process_time_ns() - began) / 1e6)
    of_database = f" + {(database.cpu() - used) / _SAMPLES * 1e3:.2f}" if database else ""
    return f"{median(samples):.2f}{of_database}"


if __name__ == "__main__":
    main()
