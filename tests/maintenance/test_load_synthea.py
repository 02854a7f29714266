"""Synthea records load and export unchanged (where the samples are)."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sample_data import SYNTHEA, needs_samples, samples
from tests.served import Served

FILES = samples(SYNTHEA)

pytestmark = needs_samples(SYNTHEA)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(f"sqlite:///{tmp_path_factory.mktemp('synthea') / 'fhir.sqlite'}", seeds=False)
    tally = served.load(*FILES)
    assert (len(FILES), tally.rejects, tally.present) == (11, [], 0)
    assert tally.stored == sum(len(entries(path)) for path in FILES)
    yield served
    served.close()


def entries(path: Path) -> list[Any]:
    return list(json.loads(gzip.decompress(path.read_bytes()), parse_float=str)["entry"])


def bare(resource: dict[str, Any]) -> str:
    """Return the content that loading must not change: no id, no meta, and ``*`` for each reference to another resource."""
    kept = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    return re.sub(r'"reference": "(?!#)[^"]*"', '"reference": "*"', json.dumps(kept, sort_keys=True))


def all_of(served: Served, type: str) -> Iterator[dict[str, Any]]:
    path, token = f"{type}?_count=1000", served.token()
    while path:
        page = json.loads(served.get(token, path).body, parse_float=str)
        yield from (entry["resource"] for entry in page.get("entry", []))
        path = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")


def test_every_synthea_resource_is_read_back_equal(loaded: Served) -> None:
    sent = Counter((entry["resource"]["resourceType"], bare(entry["resource"])) for path in FILES for entry in entries(path))
    types = {type for type, _ in sent}
    assert len(types) == 16 and sum(sent.values()) == 2994
    back = Counter((type, bare(resource)) for type in types for resource in all_of(loaded, type))
    assert back == sent


def test_references_are_rewritten_to_stored_resources(loaded: Served) -> None:
    names = {
        f"{type}/{one['id']}"
        for type in ("Patient", "Encounter", "Practitioner", "Organization", "Condition", "Observation", "Claim")
        for one in all_of(loaded, type)
    }
    for type in ("Observation", "Encounter", "Claim", "DiagnosticReport"):
        for one in all_of(loaded, type):
            found = set(re.findall(r'"reference": "(?!#)([^"]*)"', json.dumps(one)))
            assert found and not [name for name in found if name.startswith("urn:")]
            assert {name for name in found if name.partition("/")[0] in ("Patient", "Encounter", "Observation")} <= names


def test_reloading_stores_no_duplicates(loaded: Served) -> None:
    tally = loaded.load(FILES[0])
    assert (tally.stored, tally.present, tally.rejects) == (0, len(entries(FILES[0])), [])


def test_patient_everything_returns_all_but_directory_resources(loaded: Served) -> None:
    path = next(path for path in FILES if path.name.startswith("Eliseo"))
    counts = Counter(entry["resource"]["resourceType"] for entry in entries(path))
    name = next(entry["resource"]["name"][0]["family"] for entry in entries(path) if entry["resource"]["resourceType"] == "Patient")
    patient = next(one for one in all_of(loaded, "Patient") if one["name"][0]["family"] == name)
    found: Counter[str] = Counter()
    address, token = f"Patient/{patient['id']}/$everything?_count=100", loaded.token()
    while address:
        page = loaded.get(token, address).json
        found.update(entry["resource"]["resourceType"] for entry in page["entry"] if entry["search"]["mode"] == "match")
        address = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
    assert found == {type: count for type, count in counts.items() if type not in ("Organization", "Practitioner")}


def test_posted_synthea_bundle_creates_every_entry(loaded: Served) -> None:
    path = min(FILES, key=lambda path: path.stat().st_size if "Bibi" not in path.name else 10**9)
    bundle = gzip.decompress(path.read_bytes())
    answer = loaded.request(loaded.token(), "POST", "", body=bundle)
    statuses = Counter(entry["response"]["status"] for entry in answer.json["entry"])
    assert answer.status == 200 and statuses == {"201": len(entries(path))}
