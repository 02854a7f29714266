"""The discovery documents, and an ordinary SCIM client that knows nothing but them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from scim2_models import Resource, ResourceType, Schema, ScimPolicy, ScimProvider, ServiceProviderConfig
from scim2_tester import CheckResult, Status, check_server

from fhir_server.scim import conversion
from fhir_server.scim.models import ScimUser, User
from tests.scim.environment import LINKS, PASSWORD, USER, Administration, ScimClient

# RFC 7643 8.7.2: what every attribute of a schema says.
CHARACTERISTICS = {"name", "type", "multiValued", "description", "required", "mutability", "returned"}
WITH_DEFAULT = ("name", "displayName", "active", "roles")  # an account always has these


@pytest.fixture(scope="module")
def administration() -> Iterator[Administration]:
    made = Administration(seeds=False)
    yield made
    made.close()


def failures(administration: Administration, *, provider: ScimProvider | None = None) -> list[CheckResult]:
    """What the checks of scim2-tester find: discovery, all operations, all attributes."""
    client = ScimClient(administration)
    if provider is not None:
        client.provider = provider
    results = check_server(client)
    assert len(results) > 40
    return [result for result in results if result.status not in (Status.SUCCESS, Status.SKIPPED, Status.COMPLIANT)]


def test_conformance_checks_of_scim_pass_for_core_users(administration: Administration) -> None:
    found = failures(administration, provider=ScimProvider(models=[User], policy=ScimPolicy(unknown=ScimPolicy.Unknown.ignore)))
    assert {result.reason for result in found} <= {
        "Failed to add attribute 'roles': An account has one role: patient, clinician, billing or privacy.",
        *(f"PATCH modify() did not remove attribute '{name}'" for name in WITH_DEFAULT),
    }


def test_conformance_checks_fail_only_by_the_rules_of_roles(administration: Administration) -> None:
    """The checks fill all attributes at random, also a Practitioner for a patient."""
    rules = ("A personal account has no Practitioner", "A work account has no patient", "An account has one role")
    assert [result.reason for result in failures(administration) if not any(rule in str(result.reason) for rule in rules)] == []


def test_conformance_checks_find_a_wrong_version(administration: Administration, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()
    monkeypatch.setattr(conversion, "version", lambda user: f'W/"{next(numbers)}"')
    found = failures(administration, provider=ScimProvider(models=[User], policy=ScimPolicy(unknown=ScimPolicy.Unknown.ignore)))
    assert "object_replacement" in {result.title for result in found}


def test_client_discovers_creates_changes_and_removes_an_account(administration: Administration) -> None:
    client = ScimClient(administration)
    client.discover()
    model = client.provider.model_for("User")
    assert model is not None and issubclass(model, Resource)
    made = client.create(model.model_validate({"schemas": [USER], "userName": "casey", "displayName": "Casey Doe", "password": PASSWORD}))
    assert made.meta.version and made.meta.location == f"{administration.smart.origin}/scim/v2/Users/{made.id}"
    made.display_name, made.name = "Casey Roe", None
    assert client.replace(made).display_name == "Casey Roe"
    listed = client.query(model)
    assert made.id in [each.id for each in listed.resources]
    client.delete(model, made.id)
    assert administration.request("GET", f"/Users/{made.id}").status == 404


DOCUMENTS = [("/ServiceProviderConfig", ServiceProviderConfig), ("/ResourceTypes/User", ResourceType), (f"/Schemas/{USER}", Schema)]


@pytest.mark.parametrize(("path", "model"), DOCUMENTS)
def test_discovery_documents_are_valid_by_strict_reading(administration: Administration, path: str, model: type[Resource]) -> None:  # type: ignore[type-arg]
    answer = administration.request("GET", path)
    assert answer.headers["content-type"] == "application/scim+json"
    assert model.model_validate(answer.json).meta.location.endswith(path)
    with pytest.raises(ValueError, match="schemas"):
        model.model_validate({**answer.json, "schemas": ["urn:else"]})


def test_schemas_describe_every_attribute(administration: Administration) -> None:
    listed = administration.request("GET", "/Schemas").json
    assert [schema["id"] for schema in listed["Resources"]] == [USER, LINKS] and listed["totalResults"] == 2
    attributes = [attribute for schema in listed["Resources"] for attribute in schema["attributes"]]
    attributes += [sub for attribute in attributes for sub in attribute.get("subAttributes", [])]
    assert all(attribute.keys() >= CHARACTERISTICS for attribute in attributes)
    password = next(attribute for attribute in attributes if attribute["name"] == "password")
    assert (password["mutability"], password["returned"]) == ("writeOnly", "never")
    types = administration.request("GET", "/ResourceTypes").json["Resources"]
    assert [(each["endpoint"], each["schema"], each["schemaExtensions"]) for each in types] == [
        ("/Users", USER, [{"schema": LINKS, "required": False}])
    ]
    assert ScimUser.to_schema().id == USER


def test_configuration_says_what_there_is(administration: Administration) -> None:
    config = administration.request("GET", "/ServiceProviderConfig", token=None).json
    assert {name: config[name]["supported"] for name in ("patch", "bulk", "filter", "changePassword", "sort", "etag")} == {
        "patch": True, "bulk": False, "filter": True, "changePassword": True, "sort": False, "etag": True,
    }  # fmt: skip
    for path in ("/Me", "/Bulk"):
        assert administration.request("POST", path, {}).status == 501
    assert administration.request("GET", "/Groups").status == 404
    assert administration.request("DELETE", "/Schemas").status == 405
