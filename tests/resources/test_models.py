"""Typed models: found by name, imported on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fhir_server.resources import catalog
from fhir_server.resources.models import model
from fhir_server.resources.validate import check

OURS = ("Consent", "RelatedPerson", "AuditEvent", "CapabilityStatement", "OperationOutcome", "Patient", "Bundle")


@pytest.mark.parametrize("name", OURS)
def test_model_matches_its_resource_type(name: str) -> None:
    assert model(name).__name__ == name
    assert name in catalog()


@pytest.mark.parametrize("name", ["Reference", "CodeableConcept", "ConsentProvision", "ConsentProvisionActor"])
def test_model_finds_datatypes_and_backbone_elements(name: str) -> None:
    assert model(name).__name__ == name


def test_model_output_passes_validation() -> None:
    person = model("RelatedPerson")(patient={"reference": "Patient/child"}, active=True)
    assert check("RelatedPerson", {"resourceType": "RelatedPerson", **person.model_dump(mode="json", exclude_none=True)}) == ()


@pytest.mark.parametrize("name", ["Nothing", "ConsentNothing", "patient", "os.path", "..consent"])
def test_unknown_model_raises_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        model(name)


def test_validating_does_not_import_the_models() -> None:
    code = (
        "import sys; from fhir_server.resources import validate, models\n"
        "validate.check('Patient', {}); sys.exit('fhir.resources' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
