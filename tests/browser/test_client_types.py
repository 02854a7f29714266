"""The public SMART library as each type of client, and an authorization request by POST."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import import_key

from tests.browser.browser_session import Walk
from tests.browser.conftest import Command
from tests.browser.test_standalone_launch import expected

CONFIDENTIAL = {"clientId": "demo-confidential", "clientSecret": "demo-secret"}
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def keys(command: Command, client: str = "demo-asymmetric") -> dict[str, dict[str, str]]:
    """The private keys of a demo client, as the operator sees them, by algorithm."""
    return {key["alg"]: key for key in json.loads(command("client", "show", client))["private_jwks"]["keys"]}


def test_confidential_client_gets_and_refreshes_access(walk: Walk) -> None:
    walk.start(**CONFIDENTIAL).sign_in("parent-a").pick("teen").allow()
    assert walk.seen() == expected("parent-a", "teen")
    before = walk.text("token")
    assert walk.refreshed().seen() == expected("parent-a", "teen")
    assert walk.text("token") not in ("", before)


def test_confidential_client_with_wrong_secret_gets_no_token(walk: Walk) -> None:
    walk.start(**CONFIDENTIAL | {"clientSecret": "wrong-secret"}).sign_in("parent-a").pick("teen").press("button[value=allow]")
    walk.until_done()
    assert walk.text("state") == "failed"
    assert walk.text("token") == ""


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
def test_asymmetric_client_signs_in_the_browser_and_gets_access(walk: Walk, command: Command, alg: str) -> None:
    walk.start(clientId="demo-asymmetric", clientPrivateJwk=keys(command)[alg]).sign_in("parent-a").pick("teen").allow()
    assert walk.seen() == expected("parent-a", "teen")


def test_asymmetric_client_with_a_foreign_key_fails(walk: Walk, command: Command) -> None:
    foreign = keys(command, "demo-backend")["ES384"]
    walk.start(clientId="demo-asymmetric", clientPrivateJwk=foreign).sign_in("parent-a").pick("teen").press("button[value=allow]")
    walk.until_done()
    assert walk.text("state") == "failed"


def test_asymmetric_client_needs_an_assertion_to_refresh(walk: Walk, command: Command) -> None:
    key = keys(command)["ES384"]
    walk.start(clientId="demo-asymmetric", clientPrivateJwk=key).sign_in("parent-a").pick("teen").allow()
    asked = {"grant_type": "refresh_token", "refresh_token": walk.text("renewal")}
    url = f"{walk.origin}/oauth/token"
    assert walk.refreshed().text("state") == "failed", "The library sends no assertion when it refreshes."
    claims = {"iss": "demo-asymmetric", "sub": "demo-asymmetric", "aud": url, "exp": int(time.time()) + 120, "jti": "a-refresh"}
    signed = jwt.encode({"alg": "ES384", "kid": key["kid"]}, claims, import_key(key), algorithms=["ES384"])
    answer = httpx.post(url, data=asked | {"client_assertion_type": ASSERTION, "client_assertion": signed})
    assert answer.status_code == 200
    assert walk.fetched("Patient/teen", answer.json()["access_token"]) == 200


def test_app_may_request_authorization_by_post(walk: Walk) -> None:
    walk.start(noRedirect=True).sign_in("parent-a").pick("teen").allow()
    assert walk.seen() == expected("parent-a", "teen")
    assert walk.text("patient") == "teen"
