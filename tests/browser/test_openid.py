"""A general OpenID client (oidc-client-ts) that knows nothing of SMART: discovery, sign-in, renewal, revocation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.browser.browser_session import APP, Walk
from tests.browser.conftest import Command

SCOPE = "openid fhirUser launch/patient offline_access patient/*.rs"
CALL = """
const done = arguments[arguments.length - 1];
const attempt = async () => { {script} };
attempt().then((value) => done({ value: value ?? null }), (error) => done({ error: error.error ?? error.message }));
"""


def call(walk: Walk, script: str) -> dict[str, Any]:
    """``value`` or ``error`` of the script in the app's page, where ``users`` is the library's UserManager."""
    body = CALL.replace("{script}", f"const users = manager(); {script}")
    found: dict[str, Any] = walk.browser.execute_async_script(body)
    return found


@pytest.fixture
def client_id(origin: str) -> Iterator[str]:
    """An app registered by RFC 7591."""
    metadata = {
        "client_name": "Open diary",
        "redirect_uris": [f"{APP}/oidc"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": f"{SCOPE} profile",
    }
    made = httpx.post(f"{origin}/oauth/register", json=metadata).json()
    yield made["client_id"]
    manager = {"authorization": f"Bearer {made['registration_access_token']}"}
    assert httpx.delete(made["registration_client_uri"], headers=manager).status_code == 204


def signed_in(walk: Walk, client_id: str, scope: str = SCOPE, **options: Any) -> dict[str, Any]:
    """The library's user after a sign-in as ``adult``."""
    settings: dict[str, Any] = {"authority": walk.origin, "client_id": client_id, "scope": scope, **options}
    plain = "patient/" not in scope
    if not plain:
        settings["extraQueryParams"] = {"aud": f"{walk.origin}/fhir"}
    walk.browser.get(f"{APP}/oidc?{urlencode({'settings': json.dumps(settings)})}")
    walk.until_at(f"{walk.origin}/sign-in")
    walk.sign_in("adult")
    if not plain:
        walk.pick("adult")
    walk.until_at(f"{walk.origin}/oauth/consent")
    walk.press("button[value=allow]")
    walk.until_at(f"{APP}/oidc")
    walk.until(lambda: walk.text("state") in ("done", "failed"))
    assert walk.text("state") == "done", walk.text("problem")
    user: dict[str, Any] = call(walk, "return { ...await users.getUser() };")["value"]
    return user


def test_smart_112_openid_library_signs_in_by_discovery_with_valid_id_token(walk: Walk, client_id: str) -> None:
    user = signed_in(walk, client_id)
    assert walk.fetched("Patient/adult", user["access_token"]) == 200
    keys = KeySet.import_key_set(httpx.get(f"{walk.origin}/oauth/jwks").json())
    claims = jwt.decode(user["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["iss"], claims["fhirUser"]) == (walk.origin, f"{walk.origin}/fhir/Patient/adult")
    assert claims["aud"] in (client_id, [client_id])
    assert user["profile"]["sub"] == claims["sub"] and user["scope"].split() == SCOPE.split()


def test_openid_only_sign_in_grants_no_fhir_access(walk: Walk, client_id: str) -> None:
    user = signed_in(walk, client_id, "openid")
    assert user["profile"]["sub"] and "fhirUser" not in user["profile"]
    assert walk.fetched("Patient/adult", user["access_token"]) == 403


def test_smart_112_silent_renewal_returns_new_tokens_for_the_same_person(walk: Walk, client_id: str) -> None:
    before = signed_in(walk, client_id)
    after = call(walk, "return { ...await users.signinSilent() };")["value"]
    assert after["access_token"] != before["access_token"] and after["refresh_token"] != before["refresh_token"]
    assert after["profile"]["sub"] == before["profile"]["sub"]
    assert walk.fetched("Patient/adult", after["access_token"]) == 200


BOUND = """
const user = await users.getUser(), url = arguments[0];
const read = async (nonce) => fetch(url, { headers: {
    Authorization: `DPoP ${user.access_token}`, DPoP: await users.dpopProof(url, user, "GET", nonce),
} });
const asked = await read();
const answered = await read(asked.headers.get("DPoP-Nonce"));
return [asked.status, answered.status, (await fetch(url, { headers: { Authorization: `Bearer ${user.access_token}` } })).status];
"""


def test_smart_112_tokens_bound_to_the_browsers_key_are_used_and_renewed(walk: Walk, client_id: str) -> None:
    user = signed_in(walk, client_id, dpop={"bind_authorization_code": True})
    assert user["token_type"] == "DPoP"
    script = BOUND.replace("arguments[0]", json.dumps(f"{walk.origin}/fhir/Patient/adult"))
    assert call(walk, script)["value"] == [401, 200, 401]
    renewed = call(walk, "return { ...await users.signinSilent() };")["value"]
    assert renewed["access_token"] != user["access_token"]
    assert call(walk, script)["value"] == [401, 200, 401]


def test_smart_112_silent_sign_in_in_a_frame_renews_what_was_allowed(walk: Walk, command: Command) -> None:
    command("client", "add", "frame-app", "--name", "Framed diary", "--redirect-uri", f"{APP}/oidc", "--scope", SCOPE)
    before = signed_in(walk, "frame-app", SCOPE.replace("offline_access ", ""))
    after = call(walk, "return { ...await users.signinSilent() };")["value"]
    assert after["access_token"] != before["access_token"]
    assert after["profile"]["sub"] == before["profile"]["sub"]
    assert walk.fetched("Patient/adult", after["access_token"]) == 200


def test_smart_112_silent_sign_in_without_a_session_returns_login_required(walk: Walk, client_id: str) -> None:
    signed_in(walk, client_id, "openid")
    walk.browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    assert call(walk, "await users.removeUser(); return await users.signinSilent();") == {"error": "login_required"}


def test_smart_112_userinfo_is_loaded_by_the_library(walk: Walk, client_id: str) -> None:
    user = signed_in(walk, client_id, "openid profile", loadUserInfo=True)
    assert user["profile"]["name"] == "Alex Adult"


def test_smart_112_sign_out_redirect_ends_the_session_and_returns(walk: Walk, command: Command) -> None:
    command(
        "client",
        "add",
        "out-app",
        "--name",
        "Leaving diary",
        "--redirect-uri",
        f"{APP}/oidc",
        "--scope",
        "openid",
        "--post-logout-redirect-uri",
        f"{APP}/callback",
    )
    signed_in(walk, "out-app", "openid")
    call(walk, f"users.signoutRedirect({{ post_logout_redirect_uri: '{APP}/callback' }}); return null;")
    walk.until_at(f"{APP}/callback")
    walk.browser.get(f"{walk.origin}/apps")
    walk.until_at(f"{walk.origin}/sign-in")


def test_smart_112_revocation_ends_access_and_refresh_immediately(walk: Walk, client_id: str) -> None:
    user = signed_in(walk, client_id)
    kept = call(walk, "const kept = { ...await users.getUser() }; await users.revokeTokens(); return kept;")
    assert "error" not in kept, kept
    assert walk.fetched("Patient/adult", user["access_token"]) == 401
    refreshed = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": user["refresh_token"]}
    assert httpx.post(f"{walk.origin}/oauth/token", data=refreshed).status_code == 400
