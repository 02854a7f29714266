"""US Core as HL7 publishes it: its examples are accepted, and each is refused with a single defect; the server claims it.

Needs HL7's packages beside the checkout; ``test_rules.py`` has a small set that always runs.
"""

from __future__ import annotations

import copy
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from fhir_server import jsontext
from fhir_server.errors import Issue
from fhir_server.packages.archive import read_archive
from fhir_server.packages.loading import Packages
from fhir_server.resources import validate
from tests.sample_data import needs_samples, samples
from tests.served import Served

GUIDES = "packages/hl7.fhir.us.core-*.tgz"
US_CORE = "http://hl7.org/fhir/us/core"
Json = dict[str, Any]

pytestmark = needs_samples(GUIDES)


class Guide(NamedTuple):
    """A server with one version of US Core, the guide's examples that claim a profile of it, and its StructureDefinitions by URL."""

    served: Served
    examples: list[Json]
    profiles: dict[str, Json]


@pytest.fixture(scope="module", params=("6.1.0", "7.0.0", "8.0.0"))
def guide(request: pytest.FixtureRequest) -> Iterator[Guide]:
    (file,) = samples(GUIDES.replace("*", request.param))
    served = Served(seeds=False)
    parts = served.parts
    package = read_archive(file)
    assert served.run(Packages(parts.store, parts.labeler, served.settings.base, parts.clock).add(package)).refused == []
    definitions = [jsontext.parse(text) for text in package.definitions.values()]
    profiles = {one["url"]: one for one in definitions if one["resourceType"] == "StructureDefinition"}
    with tarfile.open(file) as archive:
        names = [name for name in archive.getnames() if name.startswith("package/example/") and name.endswith(".json")]
        found = [jsontext.parse(archive.extractfile(name).read()) for name in names]  # type: ignore[union-attr]
    yield Guide(served, [one for one in found if any(claim in profiles for claim in claims(one))], profiles)
    served.close()


def claims(resource: Json) -> list[str]:
    return [claim.partition("|")[0] for claim in resource.get("meta", {}).get("profile", ())]


def errors(guide: Guide, resource: Json) -> list[Issue]:
    found = guide.served.run(guide.served.parts.service.profiles.issues(resource["resourceType"], resource))
    return [issue for issue in found if issue.severity == "error"]


def test_examples_of_the_guide_are_accepted(guide: Guide) -> None:
    assert len(guide.examples) > 150
    assert {one["id"]: found for one in guide.examples if (found := errors(guide, one))} == {}


def test_each_example_is_refused_with_a_single_defect(guide: Guide) -> None:
    """What the profile demands beyond R4 is taken out or changed, one place at a time: valid R4 still, and an error of the profile."""
    planted: Counter[str] = Counter()
    without: list[str] = []
    for example in guide.examples:
        found = list(defects(guide, example))
        without += [] if found else [f"{example['resourceType']}/{example['id']}"]
        for kind, damaged in found:
            if validate.check(damaged["resourceType"], damaged):
                continue  # R4 itself refuses it
            planted[kind] += 1
            assert errors(guide, damaged), (kind, example["id"], damaged)
    assert min(planted["missing"], planted["missing inside"], planted["other code"], planted["other target"]) > 15, planted
    assert len(without) < 12, without


def defects(guide: Guide, example: Json) -> Iterator[tuple[str, Json]]:
    for url in claims(example):
        for element in guide.profiles.get(url, {}).get("snapshot", {}).get("element", ()):
            names = element["path"].split(".")[1:]
            if element["id"] != element["path"] or not names or names[0] not in example:
                continue
            required = element["min"] > 0 and element["base"]["min"] == 0
            if required and len(names) == 1:
                yield "missing", {name: value for name, value in example.items() if name.lstrip("_") != names[0]}
            if required and len(names) == 2:
                yield from _without_inside(example, *names)
            if len(names) == 1 and "patternCodeableConcept" in element:
                yield "other code", {**example, names[0]: {"coding": [{"system": "http://x.example", "code": "other"}]}}
            targets = [
                target for kind in element.get("type", ()) if kind["code"] == "Reference" for target in kind.get("targetProfile", ())
            ]
            if targets and len(names) == 1 and not any(target.lower().endswith(("location", "/resource")) for target in targets):
                other = {"reference": "Location/other"}
                yield "other target", {**example, names[0]: [other] if isinstance(example[names[0]], list) else other}


def _without_inside(example: Json, outer: str, inner: str) -> Iterator[tuple[str, Json]]:
    damaged = copy.deepcopy(example)
    item = damaged[outer][0] if isinstance(damaged[outer], list) else damaged[outer]
    if isinstance(item, dict) and inner in item:
        del item[inner]
        item.pop("_" + inner, None)
        item.setdefault("id", "kept")  # no object is empty
        yield "missing inside", damaged


def test_server_claims_the_guide(guide: Guide) -> None:
    answer = guide.served.get(None, "metadata").json
    assert f"{US_CORE}/CapabilityStatement/us-core-server" in answer["instantiates"]
    claimed = {url for one in answer["rest"][0]["resource"] for url in one.get("supportedProfile", ())}
    wanted = {url for url, one in guide.profiles.items() if one["kind"] == "resource" and one["derivation"] == "constraint"}
    assert claimed >= wanted and len(wanted) > 35
