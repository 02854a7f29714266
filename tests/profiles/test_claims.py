"""The CapabilityStatement says which profiles of packages the server supports, as soon as they are added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.packages.loading import Packages
from fhir_server.resources.validate import check
from tests.profiles import cases
from tests.profiles.cases import CASES
from tests.profiles.profile_set import BASE, package
from tests.served import Served, store_url

OWN = {"Account": ["https://fhir-server.example/ig/StructureDefinition/portal-account"]} | {
    "Consent": ["https://fhir-server.example/ig/StructureDefinition/proxy-consent"]
}
SERVER = f"{BASE}/CapabilityStatement/server"


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = Served(store_url(request.param, tmp_path), seeds=False)
    yield made
    made.close()


def statement(kind: str, mode: str, id: str) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026",
        "fhirVersion": "4.0.1",
        "format": ["json"],
    }
    return {**fixed, "id": id, "url": f"{BASE}/CapabilityStatement/{id}", "kind": kind, "rest": [{"mode": mode}], "description": "x"}


def claimed(served: Served) -> tuple[dict[str, list[str]], list[str]]:
    found = served.get(None, "metadata").json
    assert check("CapabilityStatement", found) == ()
    profiles = {one["type"]: one["supportedProfile"] for one in found["rest"][0]["resource"] if "supportedProfile" in one}
    return profiles, found["instantiates"]


def test_metadata_follows_the_packages(served: Served) -> None:
    parts = served.parts
    packages = Packages(parts.store, parts.labeler, served.settings.base, parts.clock)
    profiles, servers = claimed(served)
    tag = served.get(None, "metadata").headers["etag"]
    assert profiles == OWN and len(servers) == 1
    served.run(packages.add(cases.whole_set()))
    served.run(packages.add(package(CASES["type"].profile | {"version": "2.0.0"}, name="x.later")))
    profiles, _ = claimed(served)
    assert set(profiles) == {case.profile["type"] for case in CASES.values()} | set(OWN), "no extensions and datatypes"
    assert profiles["Observation"].count(CASES["type"].url) == 1 and profiles["Observation"] == sorted(profiles["Observation"])
    assert served.get(None, "metadata", **{"If-None-Match": tag}).status == 200
    served.run(packages.remove("x.profiles#1.0.0"))
    served.run(packages.remove("x.later#1.0.0"))
    assert claimed(served)[0] == OWN


def test_only_what_packages_require_of_servers_is_instantiated(served: Served) -> None:
    parts = served.parts
    packages = Packages(parts.store, parts.labeler, served.settings.base, parts.clock)
    wanted, others = statement("requirements", "server", "server"), [statement("requirements", "client", "client")]
    report = served.run(packages.add(package(wanted, *others)))
    assert report.refused == []
    assert claimed(served)[1] == ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data", SERVER]
