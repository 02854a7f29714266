"""The operations to measure: for each one its requests, and its target on one core."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from benchmarks import seed
from benchmarks.load import BenchmarkRequest
from benchmarks.stores import ROOT

_SYNTHEA: Final = ROOT.parent / "shared" / "data" / "synthea"
_BODIES: Final = 200


@dataclass(frozen=True, slots=True)
class Operation:
    """``target`` in CPU microseconds; ``unrestricted``: the same requests by a caller from whom nothing is withheld.

    ``lifecycle``: the requests are one POST and one PUT, repeated as create, read, update and delete (load.lua).
    ``parts``: how many resources one request stores, if the target is per resource.  ``slowness``: how many times longer
    than others it is measured, because it has few requests.
    """

    name: str
    requests: Sequence[BenchmarkRequest]
    connections: int
    target: float | None
    unrestricted: Sequence[BenchmarkRequest] = ()
    lifecycle: bool = False
    parts: float = 1
    slowness: int = 1


def operations(tokens: Mapping[str, str]) -> Iterator[Operation]:
    """Yield all operations, those that write last.  ``tokens``: see :func:`benchmarks.stores.access_tokens`."""
    backend = tokens["backend"]
    yield _reads_operation("read", list(_reads()), tokens, 16, 80)
    yield _reads_operation("search of 50", list(_searches()), tokens, 16, 550, "&_total=accurate")
    yield _reads_operation(
        "$everything of 1,000", [(one, f"/fhir/Patient/{one}/$everything") for one in seed.WATCHED_PATIENTS], tokens, 4, 8000
    )
    yield Operation("create", [BenchmarkRequest("POST", "/fhir/Observation", backend, body) for body in _results()], 16, 450)
    life = [
        BenchmarkRequest("POST", "/fhir/Observation", backend, next(_results())),
        BenchmarkRequest("PUT", "/fhir/Observation", backend, _updated_result()),
    ]
    yield Operation("create, read, update, delete", life, 16, None, lifecycle=True)
    bundles = list(_bundles())
    entries = sum(size for _, size in bundles) / len(bundles)
    stored = [BenchmarkRequest("POST", "/fhir", backend, body) for body, _ in bundles]
    yield Operation("transaction, per entry", stored, 2, 220, parts=entries, slowness=2)


def _reads_operation(
    name: str, paths: Sequence[tuple[str, str]], tokens: Mapping[str, str], connections: int, target: float, extra_query: str = ""
) -> Operation:
    """Return an operation on watched patients' records, each by its own app.

    ``extra_query`` makes the backend's response as complete as an app's.
    """
    limited = [BenchmarkRequest("GET", path, tokens[patient]) for patient, path in paths]
    return Operation(
        name, limited, connections, target, [BenchmarkRequest("GET", path + extra_query, tokens["backend"]) for _, path in paths]
    )


def _reads() -> Iterator[tuple[str, str]]:
    """Yield reads of ordinary results of all watched patients, in random order."""
    random = Random(1)
    records = [(patient, resource) for patient in seed.WATCHED_PATIENTS for resource in seed.record(patient, seed.WATCHED_ROWS)]
    random.shuffle(records)
    codes = {code for code, _, _ in seed.LABS}
    for patient, resource in records:
        if resource["resourceType"] == "Observation" and resource["code"]["coding"][0]["code"] in codes:
            yield patient, f"/fhir/Observation/{resource['id']}"


def _searches() -> Iterator[tuple[str, str]]:
    for code, _, _ in seed.LABS:
        for patient in seed.WATCHED_PATIENTS:
            yield patient, f"/fhir/Observation?patient={patient}&code=http://loinc.org%7C{code}&_count=50"


def _results() -> Iterator[bytes]:
    """Yield new results for the watched patients, without ids."""
    random = Random(2)
    for number in range(_BODIES):
        patient = seed.WATCHED_PATIENTS[number % len(seed.WATCHED_PATIENTS)]
        result = seed.observation(patient, "", number % 8, f"{patient}-visit-{number % 40}", random)
        yield seed.text({name: part for name, part in result.items() if name != "id"})


def _updated_result() -> bytes:
    """Return the first of those results, amended.  The load script sets its id."""
    return seed.text({**json.loads(next(_results())), "id": "@id@", "status": "amended"})


def _bundles() -> Iterator[tuple[bytes, int]]:
    """Yield transactions of 300 to 500 creates and their sizes: Synthea patients if the files exist, else generated ones."""
    files = sorted(_SYNTHEA.glob("*.json.gz")) if _SYNTHEA.is_dir() else []
    bundles = [json.loads(gzip.decompress(file.read_bytes())) for file in files]
    fitting = [bundle for bundle in bundles if bundle["type"] == "transaction" and 300 <= len(bundle["entry"]) <= 500]
    for bundle in fitting or [_generated_bundle(number) for number in range(4)]:
        yield json.dumps(bundle, separators=(",", ":")).encode(), len(bundle["entry"])


def _generated_bundle(number: int) -> dict[str, Any]:
    patient = f"urn:uuid:00000000-0000-4000-8000-{number:012d}"
    entries = []
    for resource in seed.record(f"made-{number}", 400):
        own = f"{resource['resourceType']}/{resource.pop('id')}"
        address = patient if resource["resourceType"] == "Patient" else f"urn:example:{own}"
        text = json.dumps(resource).replace(f"Patient/made-{number}", patient).replace("Encounter/made", "urn:example:Encounter/made")
        request = {"method": "POST", "url": resource["resourceType"]}
        entries.append({"fullUrl": address, "resource": json.loads(text), "request": request})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}
