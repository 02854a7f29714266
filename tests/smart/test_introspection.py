from __future__ import annotations

import pytest

from fhir_server.smart import demo
from fhir_server.smart.core.context import HOUR, SECOND
from tests.smart.environment import ASSERTION_TYPE, BASE, ORIGIN, World, claims_of

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def test_smart_95_98_invalid_token_returns_only_active_false(world: World) -> None:
    answer = world.post("/oauth/introspect", CONFIDENTIAL, token="invalid_token_value")
    assert (answer.status_code, answer.json()) == (200, {"active": False})


def test_smart_96_97_active_token_matches_its_token_response(world: World) -> None:
    tokens = world.tokens("parent-a", "teen")
    answer = world.post("/oauth/introspect", CONFIDENTIAL, token=tokens["access_token"])
    state, (_, claims) = answer.json(), claims_of(tokens["id_token"])
    assert answer.status_code == 200
    assert state["active"] is True
    assert (state["client_id"], state["scope"], state["patient"]) == ("demo-public", tokens["scope"], "teen")
    assert state["exp"] == world.clock() // SECOND + 3600
    assert (state["iss"], state["sub"]) == (ORIGIN, claims["sub"])
    assert state["fhirUser"] == claims["fhirUser"] == f"{BASE}/RelatedPerson/parent-a-of-teen"
    assert state["need_patient_banner"] is True
    assert "no-store" in answer.headers["cache-control"]


def test_smart_96_backend_token_returns_client_and_scope_without_sub(world: World) -> None:
    token = world.backend().json()["access_token"]
    state = world.post("/oauth/introspect", CONFIDENTIAL, token=token).json()
    assert (state["client_id"], state["scope"], "sub" in state) == ("demo-backend", "system/*.rs", False)


@pytest.mark.parametrize("state", ["expired", "revoked", "refresh"])
def test_smart_98_expired_revoked_or_refresh_token_is_inactive(world: World, state: str) -> None:
    tokens = world.tokens()
    if state == "expired":
        world.clock.forward(HOUR)
    if state == "revoked":
        world.post("/oauth/revoke", token=tokens["access_token"], client_id="demo-public")
    token = tokens["refresh_token" if state == "refresh" else "access_token"]
    assert world.post("/oauth/introspect", CONFIDENTIAL, token=token).json() == {"active": False}


def test_smart_99_bearer_token_or_assertion_authenticates_the_caller(world: World) -> None:
    token, caller = world.tokens()["access_token"], world.backend().json()["access_token"]
    header = {"Authorization": f"Bearer {caller}"}
    assert world.http.post("/oauth/introspect", data={"token": token}, headers=header).json()["active"] is True
    signed = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": world.assertion(jti="another")}
    assert world.post("/oauth/introspect", None, token=token, **signed).json()["active"] is True


def test_introspection_without_valid_credentials_is_refused(world: World) -> None:
    token = world.tokens()["access_token"]
    for given in ({}, {"client_id": "demo-public"}, {"access_token": token}):
        assert world.post("/oauth/introspect", token=token, **given).status_code in (400, 401)
    for header in ("Bearer nonsense", f"Bearer {token}x", "Bearer"):
        assert world.http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "nonsense"])
def test_smart_100_revoking_either_token_revokes_both_immediately(world: World, kind: str, hint: str | None) -> None:
    tokens = world.tokens()
    assert world.principal(tokens["access_token"])
    answer = world.post("/oauth/revoke", token=tokens[kind], client_id="demo-public", token_type_hint=hint)
    assert answer.status_code == 200
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).status_code == 400


def test_smart_100_revocation_covers_access_tokens_before_refresh(world: World) -> None:
    first = world.tokens()
    second = world.refresh(first["refresh_token"]).json()
    world.post("/oauth/revoke", token=second["refresh_token"], client_id="demo-public")
    assert world.principal(first["access_token"]) is None


def test_smart_100_revocation_keeps_other_token_families(world: World) -> None:
    first, other = world.tokens(), world.tokens()
    world.post("/oauth/revoke", token=first["access_token"], client_id="demo-public")
    assert world.principal(other["access_token"])


def test_revocation_ignores_unknown_tokens_and_refuses_other_clients(world: World) -> None:
    token = world.tokens()["access_token"]
    assert world.post("/oauth/revoke", token="unknown", client_id="demo-public").status_code == 200
    assert world.post("/oauth/revoke", CONFIDENTIAL, token=token).status_code == 400
    assert world.post("/oauth/revoke", token=token).status_code == 401
    assert world.principal(token)


def test_revocation_advances_the_security_counter(world: World) -> None:
    import asyncio

    async def counter() -> int:
        async with world.store.snapshot() as snapshot:
            return (await snapshot.permission_epoch(None)).security

    token = world.tokens()["access_token"]
    before = asyncio.run(counter())
    world.post("/oauth/revoke", token=token, client_id="demo-public")
    assert asyncio.run(counter()) > before
