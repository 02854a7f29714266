from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from fhir_server.smart.core.scopes import resource_scopes
from tests.smart.environment import BASE, ORIGIN, World


def configuration(world: World) -> dict[str, object]:
    return dict(world.http.get("/fhir/.well-known/smart-configuration").json())


def test_smart_07_08_13_the_endpoints_are_absolute_urls_that_are_served(world: World) -> None:
    document = configuration(world)
    served = {path for _, path in _paths(world)}
    for name in ("authorization_endpoint", "token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri"):
        url = str(document[name])
        assert url.startswith(ORIGIN + "/"), name
        assert urlsplit(url).path in served, name


def _paths(world: World) -> list[tuple[str, str]]:
    answers = [("GET", path) for path in ("/oauth/authorize", "/oauth/jwks")]
    answers += [("POST", path) for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke")]
    return [(method, path) for method, path in answers if world.http.request(method, path).status_code not in (404, 405)]


def test_smart_09_capabilities_are_strings_and_name_both_permission_syntaxes(world: World) -> None:
    capabilities = configuration(world)["capabilities"]
    assert isinstance(capabilities, list)
    assert all(isinstance(item, str) for item in capabilities)
    assert {"launch-standalone", "launch-ehr", "client-public", "permission-v1", "permission-v2", "authorize-post"} <= set(capabilities)


def test_smart_10_discovery_lists_the_three_grant_types(world: World) -> None:
    assert configuration(world)["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]


def test_smart_11_s256_is_the_only_challenge_method(world: World) -> None:
    assert configuration(world)["code_challenge_methods_supported"] == ["S256"]


def test_smart_12_14_single_sign_on_and_introspection_are_announced(world: World) -> None:
    document = configuration(world)
    assert document["issuer"] == ORIGIN
    assert document["introspection_endpoint"]
    assert resource_scopes(" ".join(document["scopes_supported"]))  # type: ignore[arg-type]


def test_smart_15_discovery_lists_assertion_method_and_algorithms(world: World) -> None:
    document = configuration(world)
    assert "private_key_jwt" in document["token_endpoint_auth_methods_supported"]  # type: ignore[operator]
    assert document["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]


@pytest.mark.parametrize("path", ["/oauth/jwks", "/.well-known/openid-configuration"])
def test_smart_17_any_origin_may_read_public_documents(world: World, path: str) -> None:
    assert world.http.get(path, headers={"Origin": "https://app.example"}).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/jwks"])
def test_smart_19_20_browsers_may_send_a_preflight_with_authorization(world: World, path: str) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = world.http.request("OPTIONS", path, headers=asked)
    assert answer.status_code == 204
    assert "Authorization" in answer.headers["access-control-allow-headers"]


def test_smart_19_token_responses_allow_any_origin(world: World) -> None:
    for answer in (world.exchange(world.code()), world.exchange("bogus")):
        assert answer.headers["access-control-allow-origin"] == "*"


def test_smart_73_74_openid_configuration_is_served_at_the_issuer(world: World) -> None:
    answer = world.http.get("/.well-known/openid-configuration")
    document = answer.json()
    assert answer.headers["content-type"].startswith("application/json")
    assert document["issuer"] == ORIGIN
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported", "subject_types_supported"):
        assert document[name], name


def test_issuer_differs_from_the_fhir_base(world: World) -> None:
    assert configuration(world)["issuer"] != BASE
