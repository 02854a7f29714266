"""What is measured: for each operation the requests that are sent, and the aim for it on one core."""

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
    """``aim`` in processor microseconds each; ``open``: the same questions, asked by a caller from whom nothing is withheld.

    ``lives``: the requests are one POST and one PUT, repeated as whole lives of resources (load.lua).
    ``parts`` is how many resources one request stores, where the aim counts those; ``slowness`` how much longer than
    others it is measured, because its requests are few.
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
    """All operations, those that write last.  ``tokens`` as :func:`benchmarks.stores.access_tokens` gives them."""
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
    name: str, asked: Sequence[tuple[str, str]], tokens: Mapping[str, str], connections: int, aim: float, fuller: str = ""
) -> Operation:
    """An operation on watched patients' records, each by its own app; ``fuller`` makes the backend's answer as full as an app's."""
    limited = [BenchmarkRequest("GET", path, tokens[patient]) for patient, path in asked]
    return Operation(name, limited, connections, aim, [BenchmarkRequest("GET", path + fuller, tokens["backend"]) for _, path in asked])


def _reads() -> Iterator[tuple[str, str]]:
    """Ordinary results of all watched patients, in random order."""
    random = Random(1)
    asked = [(patient, resource) for patient in seed.WATCHED_PATIENTS for resource in seed.record(patient, seed.WATCHED_ROWS)]
    random.shuffle(asked)
    codes = {code for code, _, _ in seed.LABS}
    for patient, resource in asked:
        if resource["resourceType"] == "Observation" and resource["code"]["coding"][0]["code"] in codes:
            yield patient, f"/fhir/Observation/{resource['id']}"


def _searches() -> Iterator[tuple[str, str]]:
    for code, _, _ in seed.LABS:
        for patient in seed.WATCHED_PATIENTS:
            yield patient, f"/fhir/Observation?patient={patient}&code=http://loinc.org%7C{code}&_count=50"


def _results() -> Iterator[bytes]:
    """New results for the watched patients, without ids."""
    random = Random(2)
    for number in range(_BODIES):
        patient = seed.WATCHED_PATIENTS[number % len(seed.WATCHED_PATIENTS)]
        result = seed.observation(patient, "", number % 8, f"{patient}-visit-{number % 40}", random)
        yield seed.text({name: part for name, part in result.items() if name != "id"})


def _updated_result() -> bytes:
    """The first of those results, amended; its id is put in by the load script."""
    return seed.text({**json.loads(next(_results())), "id": "@id@", "status": "amended"})


def _bundles() -> Iterator[tuple[bytes, int]]:
    """Transactions of 300 to 500 creates and their sizes: Synthea patients where those files are, else made-up ones."""
    files = sorted(_SYNTHEA.glob("*.json.gz")) if _SYNTHEA.is_dir() else []
    found = [json.loads(gzip.decompress(file.read_bytes())) for file in files]
    fitting = [bundle for bundle in found if bundle["type"] == "transaction" and 300 <= len(bundle["entry"]) <= 500]
    for bundle in fitting or [_generated_bundle(number) for number in range(4)]:
        yield json.dumps(bundle, separators=(",", ":")).encode(), len(bundle["entry"])


def _generated_bundle(number: int) -> dict[str, Any]:
    patient = f"urn:uuid:00000000-0000-4000-8000-{number:012d}"
    entries = []
    for resource in seed.record(f"made-{number}", 400):
        own = f"{resource['resourceType']}/{resource.pop('id')}"
        address = patient if resource["resourceType"] == "Patient" else f"urn:example:{own}"
        text = json.dumps(resource).replace(f"Patient/made-{number}", patient).replace("Encounter/made", "urn:example:Encounter/made")
        asked = {"method": "POST", "url": resource["resourceType"]}
        entries.append({"fullUrl": address, "resource": json.loads(text), "request": asked})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}
