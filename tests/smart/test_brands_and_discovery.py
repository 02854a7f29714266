"""The user-access brands bundle and the discovery documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from fhir_server.resources import validate
from tests.smart.environment import BASE, ORIGIN, World
from tests.smart.full_environment import Whole

BUNDLE = "/user-access-brands.json"
EXTENSION = "http://hl7.org/fhir/StructureDefinition"


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    made = Whole()
    yield made
    made.served.close()


def bundle(world: World) -> dict[str, Any]:
    return dict(world.http.get(BUNDLE).json())


def entries(world: World, type: str) -> list[dict[str, Any]]:
    return [one["resource"] for one in bundle(world)["entry"] if one["resource"]["resourceType"] == type]


def part(resource: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in resource["extension"] if one["url"] == f"{EXTENSION}/{name}")


def test_smart_16_101_brand_bundle_is_public_with_cors_and_etag(world: World) -> None:
    document = world.http.get("/fhir/.well-known/smart-configuration").json()
    assert document["user_access_brand_bundle"] == ORIGIN + BUNDLE
    answer = world.http.get(BUNDLE, headers={"Origin": "https://app.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert answer.headers["content-type"].startswith("application/fhir+json")
    again = world.http.get(BUNDLE, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert world.http.get(BUNDLE, headers={"If-None-Match": '"other"'}).status_code == 200
    assert world.http.request("OPTIONS", BUNDLE).status_code == 204


def test_smart_102_brand_bundle_is_a_valid_timestamped_collection(world: World) -> None:
    document = bundle(world)
    assert validate.check("Bundle", document) == ()
    assert (document["type"], bool(document["timestamp"]), len(document["entry"])) == ("collection", True, 2)
    for entry in document["entry"]:
        resource = entry["resource"]
        assert validate.check(resource["resourceType"], resource) == ()
        assert entry["fullUrl"] == f"{BASE}/{resource['resourceType']}/{resource['id']}"


def test_smart_103_endpoint_meets_its_profile_and_belongs_to_the_brand(world: World) -> None:
    (endpoint,), (brand,) = entries(world, "Endpoint"), entries(world, "Organization")
    assert part(endpoint, "endpoint-fhir-version")["valueCode"] == "4.0.1"
    assert (endpoint["status"], endpoint["connectionType"]["code"]) == ("active", "hl7-fhir-rest")
    assert endpoint["payloadType"][0]["coding"][0]["code"] == "none"
    assert endpoint["name"]
    assert world.http.get(endpoint["contact"][0]["value"].removeprefix(ORIGIN)).status_code == 200
    assert {"reference": f"Endpoint/{endpoint['id']}"} in brand["endpoint"]


def test_smart_104_endpoint_address_serves_a_capability_statement(whole: Whole) -> None:
    (endpoint,) = entries(whole, "Endpoint")
    answer = whole.http.get(f"{endpoint['address']}/metadata".removeprefix(ORIGIN))
    assert (answer.status_code, answer.json()["resourceType"]) == (200, "CapabilityStatement")


def test_smart_105_brand_meets_its_profile_and_owns_the_portal_endpoint(world: World) -> None:
    (brand,) = entries(world, "Organization")
    portal = {one["url"]: one for one in part(brand, "organization-portal")["extension"]}
    assert (brand["active"], brand["name"]) == (True, world.smart.organization)
    assert brand["telecom"] == [{"system": "url", "value": f"{ORIGIN}/"}]
    assert portal["portalUrl"]["valueUrl"] == f"{ORIGIN}/"
    assert portal["portalEndpoint"]["valueReference"] in brand["endpoint"]
    logo = part(brand, "organization-brand")["extension"][0]["valueUrl"]
    assert world.http.get(logo.removeprefix(ORIGIN)).status_code == 200
    assert "data-absent-reason" not in json.dumps(brand)


def test_smart_106_the_identifier_in_discovery_names_the_brand(world: World) -> None:
    identifier = world.http.get("/fhir/.well-known/smart-configuration").json()["user_access_brand_identifier"]
    assert identifier["value"]
    assert [one for brand in entries(world, "Organization") for one in brand["identifier"] if one == identifier] == [identifier]


def test_smart_04_05_06_discovery_is_json_for_any_accept_or_slash(whole: Whole) -> None:
    for path in ("/fhir/.well-known/smart-configuration", "/fhir//.well-known/smart-configuration"):
        for accept in ("*/*", "application/fhir+xml", "text/html"):
            answer = whole.http.get(path, headers={"Accept": accept})
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("application/json")
            assert answer.json()["capabilities"]


def test_smart_17_18_20_any_origin_may_read_discovery_metadata_and_the_record(whole: Whole) -> None:
    token = whole.allowed("adult", "adult", scope="launch/patient patient/*.rs")["access_token"]
    for path, headers in (
        ("/fhir/.well-known/smart-configuration", {}),
        ("/fhir/metadata", {}),
        ("/fhir/Patient/adult", {"Authorization": f"Bearer {token}"}),
    ):
        answer = whole.http.get(path, headers=headers | {"Origin": "https://app.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*"), path
        preflight = whole.http.request(
            "OPTIONS", path, headers={"Origin": "https://app.example", "Access-Control-Request-Headers": "authorization"}
        )
        assert "Authorization" in preflight.headers["access-control-allow-headers"], path


def test_smart_16_21_metadata_and_discovery_name_the_same_six_endpoints(whole: Whole) -> None:
    document = whole.http.get("/fhir/.well-known/smart-configuration").json()
    security = whole.http.get("/fhir/metadata").json()["rest"][0]["security"]
    stated = {one["url"]: one["valueUri"] for one in security["extension"][0]["extension"]}
    names = {
        "authorize": "authorization_endpoint",
        "token": "token_endpoint",
        "introspect": "introspection_endpoint",
        "manage": "management_endpoint",
        "register": "registration_endpoint",
        "revoke": "revocation_endpoint",
    }
    assert stated == {name: document[member] for name, member in names.items()}
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    for url in stated.values():
        assert urlsplit(url).scheme and url.startswith(ORIGIN)


def test_smart_16_registration_endpoint_is_served(world: World) -> None:
    url = world.http.get("/fhir/.well-known/smart-configuration").json()["registration_endpoint"]
    assert world.http.post(url.removeprefix(ORIGIN), json={}).status_code == 400
