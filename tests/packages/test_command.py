"""``fhir-server package``: what the operator sees of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server import jsontext
from fhir_server.resources.validate import check
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.packages.test_archive import MANIFEST, VALUE_SET, link, made
from tests.served import ROOT, Served


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    operator = new_operator(request.param, tmp_path, monkeypatch)
    operator.must("create-store")
    return operator


def test_package_is_added_listed_and_removed(operator: Operator, tmp_path: Path) -> None:
    path = made(tmp_path / "x.tgz", {"package/package.json": MANIFEST, "package/ValueSet-colours.json": VALUE_SET})
    said = operator.must("package", "add", str(path))
    assert "x.y#1.0.0: 1 stored, 0 already there, 0 refused." in said and "depends on hl7.fhir.r4.core#4.0.1, which is not here" in said
    assert "0 stored, 1 already there" in operator.must("package", "add", str(path))
    assert operator.must("package", "list").split() == ["x.y#1.0.0", "1"]
    served = Served(operator.url, seeds=False)
    assert served.get(served.token(), "ValueSet/colours").status == 200
    served.close()
    assert "1 removed" in operator.must("package", "remove", "x.y#1.0.0")
    assert operator.must("package", "list") == ""


def test_mistakes_are_named(operator: Operator, tmp_path: Path) -> None:
    hostile = made(tmp_path / "x.tgz", {"package/package.json": MANIFEST}, link(b"2"))
    for command, reason in (
        (("add", str(hostile)), "is refused"),
        (("add", str(tmp_path / "none.tgz")), "not a readable package"),
        (("remove", "x.y#1.0.0"), "There is no package x.y#1.0.0"),
    ):
        shown = operator.run("package", *command)
        assert shown.exit_code == 1 and reason in shown.output, shown.output
    assert operator.run("package", "add", "fhir-server.ig", OPERATION="read-only").exit_code == 1


def test_examples_of_the_guide_are_valid() -> None:
    files = sorted((ROOT / "ig" / "examples").glob("*.json"))
    resources = [jsontext.parse(file.read_bytes()) for file in files]
    assert len(files) == 5 and all(check(one["resourceType"], one) == () for one in resources)
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    for name in ("release-at", "account-balance", "minor-consented", "portal-account", "proxy-consent"):
        assert f"/StructureDefinition/{name}" in text
