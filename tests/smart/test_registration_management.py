"""Client registration management (RFC 7592) and software statements (RFC 7591 2.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from fhir_server.smart.clients import initial_access_tokens, software_statements
from fhir_server.smart.clients.software_statements import Publisher
from fhir_server.smart.core.context import SECOND
from tests.smart.environment import World
from tests.smart.registration_helpers import METADATA, REDIRECT, bearer, find, made, path, post


def test_app_reads_updates_and_deletes_its_registration(world: World) -> None:
    told = made(world, scope="launch/patient patient/*.rs")
    token = told["registration_access_token"]
    read = world.http.get(path(told), headers=bearer(token))
    assert (read.status_code, read.json()) == (200, told)
    changed = METADATA | {"client_id": told["client_id"], "client_name": "Heart diary 2", "scope": "launch/patient patient/Patient.rs"}
    answer = world.http.request("PUT", path(told), json=changed, headers=bearer(token))
    assert (answer.status_code, answer.json()["client_name"], answer.json()["scope"]) == (200, "Heart diary 2", changed["scope"])
    given = {"client_id": told["client_id"], "redirect_uri": REDIRECT}
    tokens = world.exchange(world.code(**given), **given).json()
    assert world.http.request("DELETE", path(told), headers=bearer(token)).status_code == 204
    assert find(world, told["client_id"]) is None
    assert world.principal(tokens["access_token"]) is None
    assert world.http.get(path(told), headers=bearer(token)).status_code == 401


def test_registration_update_removes_omitted_members(world: World) -> None:
    told = made(world, client_uri="https://app.example", contacts=["me@app.example"])
    changed = METADATA | {"client_id": told["client_id"]}
    answer = world.http.request("PUT", path(told), json=changed, headers=bearer(told["registration_access_token"])).json()
    assert not {"client_uri", "contacts"} & answer.keys()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_foreign_registration_access_token_returns_401(world: World, method: str) -> None:
    told, other = made(world), made(world, client_name="Lung diary")
    body = METADATA | {"client_id": told["client_id"]}
    tokens = ("", "wrong", other["registration_access_token"], asyncio.run(initial_access_tokens.issue(world.store, world.clock())))
    for token in tokens:
        answer = world.http.request(method, path(told), json=body, headers=bearer(token))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        unknown = world.http.request(method, "/oauth/register/nobody", json=body, headers=bearer(token))
        assert (unknown.status_code, unknown.content) == (answer.status_code, answer.content)
    operators = world.http.request(method, "/oauth/register/demo-public", json=body, headers=bearer(""))
    assert operators.status_code == 401
    assert find(world, told["client_id"]) and find(world, "demo-public")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": "demo-public"},
        {"registration_access_token": "x"},
        {"registration_client_uri": "x"},
        {"client_id_issued_at": 1},
        {"client_secret": "chosen by the app, which it may not"},
        {"client_name": "Demo phone app"},
        {"redirect_uris": ["http://evil.example/"]},
        {"scope": "system/*.rs"},
    ],
    ids=repr,
)
def test_invalid_registration_update_changes_nothing(world: World, changes: dict[str, Any]) -> None:
    told = made(world)
    before = find(world, told["client_id"])
    body = {name: value for name, value in (METADATA | {"client_id": told["client_id"]} | changes).items() if value is not None}
    answer = world.http.request("PUT", path(told), json=body, headers=bearer(told["registration_access_token"]))
    assert answer.status_code == 400
    assert find(world, told["client_id"]) == before


def test_registration_update_keeps_secret_and_issued_token_scopes(world: World) -> None:
    told = made(world, token_endpoint_auth_method="client_secret_post", scope="launch/patient patient/Patient.rs")
    token, auth = told["registration_access_token"], (told["client_id"], told["client_secret"])
    first = world.exchange(world.code(client_id=auth[0], redirect_uri=REDIRECT), auth, redirect_uri=REDIRECT).json()
    body = METADATA | {
        "client_id": auth[0],
        "client_secret": auth[1],
        "token_endpoint_auth_method": "client_secret_post",
        "scope": "patient/*.cruds",
    }
    answer = world.http.request("PUT", path(told), json=body, headers=bearer(token))
    assert answer.status_code == 200
    assert "client_secret" not in answer.json()
    assert [scope.text for scope in world.principal(first["access_token"]).scopes] == ["patient/Patient.rs"]
    assert world.exchange(world.code(client_id=auth[0], redirect_uri=REDIRECT), auth, redirect_uri=REDIRECT).status_code == 200


def signed(world: World, key: ECKey, **changes: Any) -> str:
    stated = {"iss": "https://publisher.example", "client_name": "Vouched diary", "software_id": "s-1"} | changes
    header = {"alg": "ES384", "kid": key.kid}
    return jwt.encode(header, {name: value for name, value in stated.items() if value is not None}, key, algorithms=["ES384"])


@pytest.fixture
def key(world: World) -> ECKey:
    made = ECKey.generate_key("P-384", {"alg": "ES384"}, auto_kid=True)
    publisher = Publisher("https://publisher.example", dict(KeySet([made]).as_dict(private=False)))
    asyncio.run(software_statements.trust(world.store, publisher))
    return made


def test_software_statement_overrides_the_apps_metadata(world: World, key: ECKey) -> None:
    statement = signed(world, key, scope="launch/patient patient/Patient.rs")
    told = made(world, software_statement=statement, scope="patient/*.cruds")
    assert (told["client_name"], told["scope"], told["software_id"]) == ("Vouched diary", "launch/patient patient/Patient.rs", "s-1")
    assert told["software_statement"] == statement
    kept = find(world, told["client_id"])
    assert kept is not None
    assert kept.publisher == "https://publisher.example"


def test_software_statement_cannot_exceed_app_privileges(world: World, key: ECKey) -> None:
    assert post(world, software_statement=signed(world, key, scope="system/*.rs")).status_code == 400
    assert post(world, software_statement=signed(world, key, client_name="Demo Health")).status_code == 400
    told = made(world, software_statement=signed(world, key, clearance=["*"], trusted=True, kind="backend"))
    kept = find(world, told["client_id"])
    assert kept is not None
    assert (kept.kind, kept.clearance, kept.trusted) == ("app", (), False)


def test_untrusted_or_expired_software_statement_is_refused(world: World, key: ECKey) -> None:
    now = world.clock() // SECOND
    other = ECKey.generate_key("P-384", {"kid": key.kid})
    refused = {
        signed(world, key, iss="https://other.example"): "unapproved_software_statement",
        signed(world, key, iss=None): "unapproved_software_statement",
        signed(world, other): "invalid_software_statement",
        signed(world, key, exp=now): "invalid_software_statement",
        signed(world, key, exp="never"): "invalid_software_statement",
        signed(world, key, nbf=now + 60): "invalid_software_statement",
        "a.b.c": "invalid_software_statement",
        "eyJhbGciOiJub25lIn0." + signed(world, key).split(".")[1] + ".": "invalid_software_statement",
    }
    for statement, error in refused.items():
        answer = post(world, software_statement=statement)
        assert (answer.status_code, answer.json()["error"]) == (400, error), statement
    assert asyncio.run(software_statements.distrust(world.store, "https://publisher.example"))
    assert post(world, software_statement=signed(world, key)).json()["error"] == "unapproved_software_statement"
