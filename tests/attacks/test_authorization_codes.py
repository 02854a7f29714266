"""Authorization codes and PKCE: stolen, replayed, injected, guessed."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import initial_access_tokens
from fhir_server.smart.core.context import new_secret
from fhir_server.smart.tokens.launch import Launch, create_launch
from tests.smart.environment import VERIFIER, Page, World, query

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def test_code_replay_revokes_issued_and_refreshed_tokens(world: World) -> None:
    code = world.code()
    first = world.exchange(code).json()
    renewed = world.refresh(first["refresh_token"]).json()
    assert world.principal(renewed["access_token"])  # the control
    assert world.exchange(code).json()["error"] == "invalid_grant"
    assert world.principal(first["access_token"]) is None
    assert world.principal(renewed["access_token"]) is None
    assert world.refresh(renewed["refresh_token"]).json()["error"] == "invalid_grant"


def test_code_replay_keeps_other_grants_of_the_person(world: World) -> None:
    other, code = world.tokens(), world.code()
    world.exchange(code)
    world.exchange(code)
    assert world.principal(other["access_token"])


def test_code_injection_fails_without_matching_code_verifier(world: World) -> None:
    """A code stolen from one session and injected into the response of another (RFC 9700 4.5)."""
    others = base64.urlsafe_b64encode(hashlib.sha256(b"w" * 50).digest()).rstrip(b"=").decode()
    stolen, own = world.code(code_challenge=others), world.code()
    assert world.exchange(stolen).status_code == 400
    assert world.exchange(own).status_code == 200
    assert world.exchange(stolen, code_verifier="w" * 50).status_code == 200


@pytest.mark.parametrize("name", ["code_verifier", "code", "redirect_uri", "grant_type"])
def test_pkce_downgrade_by_missing_or_blank_parameter_returns_400(world: World, name: str) -> None:
    sound: dict[str, str | None] = {"grant_type": "authorization_code", "code": world.code(), "redirect_uri": demo.REDIRECT}
    sound |= {"code_verifier": VERIFIER, "client_id": "demo-public"}
    for value in (None, "", " "):
        assert world.post("/oauth/token", **(sound | {name: value})).status_code == 400
    assert world.post("/oauth/token", **sound).status_code == 200


def test_code_of_one_client_is_refused_for_another_client(world: World) -> None:
    for owner, thief in (("demo-public", CONFIDENTIAL), ("demo-confidential", None)):
        code = world.code(client_id=owner)
        assert world.exchange(code, thief).json()["error"] == "invalid_grant"
        assert world.exchange(code, CONFIDENTIAL if owner == CONFIDENTIAL[0] else None).status_code == 200


@pytest.mark.parametrize("other", ["refresh_token", "access_token", "id_token"])
def test_token_confusion_rejects_token_as_code_and_code_as_token(world: World, other: str) -> None:
    tokens = world.tokens()
    assert world.exchange(tokens[other]).json()["error"] == "invalid_grant"
    code = world.code()
    assert world.principal(code) is None
    assert world.refresh(code).json()["error"] == "invalid_grant"
    assert world.exchange(code).status_code == 200


def test_issued_secrets_are_256_bits_long_and_distinct(world: World) -> None:
    """Each has 256 random bits, so no limit on guessing is needed."""
    page = world.consent_page()
    handle, session = dict(Page(page.text).sent)["request"], world.http.cookies["session"]
    code = query(world.submit(page, decision="allow").headers["location"])["code"]
    tokens = world.exchange(code).json()
    launch = asyncio.run(create_launch(world.store, Launch("demo-public", "adult", "adult"), world.clock()))
    invitation = asyncio.run(initial_access_tokens.issue(world.store, world.clock()))
    found = [handle, session, code, tokens["access_token"], tokens["refresh_token"], launch, invitation, new_secret()]
    assert all(len(base64.urlsafe_b64decode(one + "=")) == 32 for one in found)
    assert len(set(found)) == len(found)


def test_code_verifier_is_not_stored(world: World) -> None:
    code = world.code()
    assert world.exchange(code).status_code == 200
    kept = repr(vars(world.store)) + repr(vars(world.store.key_values))
    assert "demo-public" in kept  # the control
    assert VERIFIER not in kept
