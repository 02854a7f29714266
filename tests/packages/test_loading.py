"""Packages in the store: their definitions are read and searched as other resources are, and no client writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.interactions.operation_definitions import operation_definitions
from fhir_server.packages.archive import Package, read_archive
from fhir_server.packages.loading import AddReport, Packages
from fhir_server.packages.mark import SYSTEM
from fhir_server.packages.product import GUIDE, R4, product_package
from fhir_server.writing.indexing_steps import index_all
from tests.packages.test_archive import made
from tests.sample_data import US_CORE, needs_samples, samples
from tests.served import Served, store_url

URL = "http://x.example/colours"


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = Served(store_url(request.param, tmp_path), seeds=False)
    yield made
    made.close()


def value_set(**changes: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "id": "colours", "url": URL, "version": "1.0.0", "status": "active", "name": "Colours", **changes}


def package(*definitions: dict[str, Any], version: str = "1.0.0", name: str = "x.y", needs: dict[str, str] | None = None) -> Package:
    texts = {f"package/{one['resourceType']}-{one['id']}.json": json.dumps(one).encode() for one in definitions}
    return Package(name, version, needs or {}, texts)


def packages(served: Served) -> Packages:
    return Packages(served.parts.store, served.parts.labeler, served.settings.base, served.parts.clock)


def add(served: Served, one: Package) -> AddReport:
    return served.run(packages(served).add(one))


def labels(served: Served) -> list[str]:
    return [one.label for one in served.run(packages(served).all())]


def test_every_caller_reads_and_searches_definitions(served: Served) -> None:
    assert add(served, package(value_set())) == AddReport(stored=1)
    feed = served.token()
    for token in (feed, served.token(scope="system/ValueSet.rs")):
        for query in (f"url={URL}", "_id=colours", "name=colours", f"url={URL}&version=1.0.0", "_total=accurate"):
            found = served.get(token, f"ValueSet?{query}").json
            assert (found["total"], [one["resource"]["id"] for one in found["entry"]]) == (1, ["colours"]), query
        assert served.get(token, "ValueSet/colours").json["url"] == URL
    assert served.get(served.token(scope="system/Patient.rs"), "ValueSet/colours").status == 403
    assert served.get(None, "ValueSet/colours").status == 401


def test_no_client_writes_them(served: Served) -> None:
    add(served, package(value_set()))
    feed = served.token()
    body = value_set(name="Mine")
    patch = [{"op": "replace", "path": "/name", "value": "Mine"}]
    profile = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"profile": ["http://x.example/p"]}}]}
    mark = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"system": SYSTEM, "code": "x.y#1.0.0"}]}}]}
    entry = {"request": {"method": "PUT", "url": "ValueSet/colours"}, "resource": body}
    answers = [
        served.request(feed, "PUT", "ValueSet/colours", body=body),
        served.request(feed, "PUT", f"ValueSet?url={URL}", body=body),
        served.request(feed, "DELETE", "ValueSet/colours"),
        served.request(feed, "DELETE", f"ValueSet?url={URL}"),
        served.request(feed, "PATCH", "ValueSet/colours", body=patch, headers={"content-type": "application/json-patch+json"}),
        served.request(feed, "POST", "ValueSet/colours/$meta-delete", body=profile),
        served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [entry]}),
    ]  # fmt: skip
    assert [answer.status for answer in answers] == [403] * len(answers)
    assert all("comes from the package x.y#1.0.0" in answer.body.decode() for answer in answers if answer.status == 403)
    own = value_set(id="own", url=f"{URL}/own")
    assert served.request(feed, "PUT", "ValueSet/own", body=own).status == 201
    assert served.request(feed, "PUT", "ValueSet/own", body=own | {"name": "Changed"}).status == 200
    claimed = own | {"meta": {"tag": [{"system": SYSTEM, "code": "x.y#1.0.0"}]}}
    assert served.request(feed, "PUT", "ValueSet/own", body=claimed).status == 403
    assert served.request(feed, "POST", "ValueSet", body=claimed).status == 403
    assert served.request(feed, "POST", "ValueSet/own/$meta-add", body=mark).status == 403
    assert served.get(feed, "ValueSet/colours").json["name"] == "Colours"


def test_adding_again_stores_nothing(served: Served) -> None:
    one = package(value_set(), value_set(id="other", url=f"{URL}/other"))
    assert add(served, one) == AddReport(stored=2) and add(served, one) == AddReport(present=2)
    assert labels(served) == ["x.y#1.0.0"]
    assert served.get(served.token(), "ValueSet/colours").json["meta"]["versionId"] == "1"


def test_an_interrupted_addition_is_continued(served: Served) -> None:
    first, second = value_set(), value_set(id="other", url=f"{URL}/other")
    add(served, package(first))
    served.run(served.parts.store.key_values.pop("package", "x.y#1.0.0", 0))
    assert labels(served) == []
    assert add(served, package(first, second)) == AddReport(stored=1, present=1)
    assert served.run(packages(served).remove("x.y#1.0.0")) == 2


def test_versions_of_a_package_stand_side_by_side(served: Served) -> None:
    add(served, package(value_set()))
    add(served, package(value_set(version="2.0.0"), version="2.0.0"))
    feed = served.token()
    assert sorted(one["resource"]["version"] for one in served.get(feed, f"ValueSet?url={URL}").json["entry"]) == ["1.0.0", "2.0.0"]
    assert served.get(feed, "ValueSet/colours-2.0.0").json["version"] == "2.0.0"
    assert served.run(packages(served).remove("x.y#1.0.0")) == 1
    assert served.get(feed, f"ValueSet?url={URL}").json["total"] == 1 and labels(served) == ["x.y#2.0.0"]


def test_a_definition_that_another_package_has_is_not_stored_twice(served: Served) -> None:
    add(served, package(value_set()))
    assert add(served, package(value_set(), name="z")) == AddReport(present=1)
    assert served.get(served.token(), f"ValueSet?url={URL}").json["total"] == 1
    assert served.run(packages(served).remove("z#1.0.0")) == 0 and served.get(served.token(), "ValueSet/colours").status == 200


def test_rows_of_clients_stay_as_they_are(served: Served) -> None:
    feed = served.token()
    assert served.request(feed, "PUT", "ValueSet/colours", body=value_set(name="Mine")).status == 201
    assert add(served, package(value_set())) == AddReport(stored=1)
    assert served.get(feed, "ValueSet/colours").json["name"] == "Mine"
    assert served.get(feed, "ValueSet/colours-1.0.0").json["name"] == "Colours"
    served.run(packages(served).remove("x.y#1.0.0"))
    assert served.get(feed, "ValueSet/colours").status == 200 and served.get(feed, "ValueSet/colours-1.0.0").status == 410


def test_missing_dependencies_and_invalid_definitions_are_named(served: Served) -> None:
    report = add(served, package(value_set(), value_set(id="bad", status="nonsense"), needs={"z": "1.0.0"}))
    assert (report.stored, report.missing, [name for name, _ in report.refused]) == (1, ["z#1.0.0"], ["ValueSet-bad.json"])
    add(served, package(name="z"))
    assert add(served, package(value_set(), needs={"z": "1.0.0"})).missing == []
    with pytest.raises(ValueError, match=r"x\.y#1\.0\.0 depends on z#1\.0\.0"):
        served.run(packages(served).remove("z#1.0.0"))
    with pytest.raises(ValueError, match="no package q#1"):
        served.run(packages(served).remove("q#1"))


def test_guide_of_the_product_holds_the_definition_of_each_operation() -> None:
    served = Served(seeds=False)
    report = add(served, product_package(GUIDE, operation_definitions()))
    assert report.refused == [] and report.missing == ["hl7.fhir.r4.core#4.0.1"]
    feed = served.token()
    rest = served.get(None, "metadata").json["rest"][0]
    promised = {one["definition"]: one["name"] for part in (rest, *rest["resource"]) for one in part.get("operation", ())}
    for url, name in promised.items():
        (found,) = served.get(feed, f"OperationDefinition?url={url}").json["entry"]
        assert found["resource"]["code"] == name
        assert served.get(feed, f"OperationDefinition/{found['resource']['id']}").status == 200
    profile = served.get(feed, "StructureDefinition?url=https://fhir-server.example/ig/StructureDefinition/release-at").json
    assert profile["total"] == 1
    served.close()


def test_definitions_of_r4_are_valid_and_complete() -> None:
    """A sample of each kind is stored; the whole package takes minutes."""
    whole = product_package(R4, {})
    kinds = {name: json.loads(text)["resourceType"] for name, text in whole.definitions.items()}
    counts = {kind: [*kinds.values()].count(kind) for kind in set(kinds.values())}
    packed = {"StructureDefinition": 655, "SearchParameter": 1400, "OperationDefinition": 47, "CompartmentDefinition": 6}
    assert counts == {**packed, "CodeSystem": 1062, "ValueSet": 1316, "ConceptMap": 80}
    names = {
        "StructureDefinition-Patient",
        "StructureDefinition-vitalsigns",
        "SearchParameter-individual-family",
        "CompartmentDefinition-patient",
        "CodeSystem-observation-status",
        "CodeSystem-v2-0006-2.1",
        "ValueSet-administrative-gender",
        "ConceptMap-cm-address-use-v2",
    }
    sample = {name: text for name, text in whole.definitions.items() if Path(name).stem in names}
    served = Served(seeds=False)
    report = add(served, Package(whole.name, whole.version, {}, sample))
    assert (report.stored, report.refused) == (8, [])
    feed = served.token()
    codes = served.get(feed, "CodeSystem?url=http://hl7.org/fhir/observation-status").json["entry"][0]["resource"]
    assert "entered-in-error" in [concept["code"] for concept in codes["concept"]]
    assert served.get(feed, "ValueSet/administrative-gender").json["compose"]
    assert served.get(feed, "CodeSystem?system=http://terminology.hl7.org/CodeSystem/v2-0006%5C%7C2.1").status == 200
    assert served.get(feed, "StructureDefinition?url=http://hl7.org/fhir/StructureDefinition/Patient").json["total"] == 1
    assert served.get(feed, "CompartmentDefinition?code=Patient").json["total"] == 1
    served.close()


def test_guide_of_the_product_is_read_from_an_archive(tmp_path: Path) -> None:
    guide = product_package(GUIDE, {})
    manifest = {"name": "a.guide", "version": "1.0.0", "fhirVersions": ["4.0.1"], "dependencies": guide.dependencies}
    texts = {f"package/{Path(name).name}": text for name, text in guide.definitions.items()}
    found = read_archive(made(tmp_path / "guide.tgz", {"package/package.json": manifest, **texts}))
    assert (found.label, sorted(found.definitions.values())) == ("a.guide#1.0.0", sorted(texts.values()))
    served = Served(seeds=False)
    assert add(served, found) == AddReport(stored=len(texts), missing=["hl7.fhir.r4.core#4.0.1"])
    url = "https://fhir-server.example/ig/StructureDefinition/release-at"
    assert served.get(served.token(), f"StructureDefinition?url={url}").json["total"] == 1
    served.close()


@needs_samples(US_CORE)
def test_us_core_is_read() -> None:
    found = read_archive(*samples(US_CORE))
    assert found.label == "hl7.fhir.us.core#7.0.0" and len(found.definitions) > 200
    served = Served(seeds=False)
    part = {name: text for name, text in found.definitions.items() if "us-core-patient" in name or "CapabilityStatement" in name}
    assert add(served, Package(found.name, found.version, found.dependencies, part)).refused == []
    url = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"
    assert served.get(served.token(), f"StructureDefinition?url={url}").json["total"] == 1
    served.close()


@needs_samples(US_CORE)
def test_us_core_s_own_search_parameters_are_served(served: Served) -> None:
    report = add(served, read_archive(*samples(US_CORE)))
    assert report.unused == []
    served.run(index_all(served.parts.store, served.parts.labeler, served.settings.base, served.parts.clock))
    race = {
        "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
        "extension": [{"url": "ombCategory", "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2106-3"}}],
    }
    body = {"resourceType": "Patient", "id": "one", "extension": [race], "birthDate": "1980-01-01", "name": [{"family": "Doe"}]}
    feed = served.token()
    assert served.request(feed, "PUT", "Patient/one", body=body).status == 201
    assert served.get(feed, "Patient?race=2106-3").ids() == ["one"]
    assert served.get(feed, "Patient?race=2054-5").ids() == []
    for query in (
        "Patient?ethnicity=x", "Condition?asserted-date=ge2020", "Encounter?discharge-disposition=home",
        "CareTeam?role=x", "Goal?description=x",
    ):  # fmt: skip
        assert served.get(feed, query).status == 200, query
    assert served.run(packages(served).remove("hl7.fhir.us.core#7.0.0")) > 100
    assert served.get(feed, "Patient?race=2106-3").status == 400
