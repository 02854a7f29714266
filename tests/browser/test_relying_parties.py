"""Public OpenID and OAuth libraries as relying parties, unchanged: from discovery to sign-out, with a person in a browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.browser.browser_session import Walk
from tests.browser.conftest import Command
from tests.browser.node_client import Arrival, Callback, callback_server, converse
from tests.ports import reserved_port
from tests.waiting import wait_until

SCOPE = "openid profile fhirUser launch/patient offline_access patient/*.rs"
Altered = Callable[[Arrival], Arrival]


@pytest.fixture(scope="module")
def callback() -> Iterator[Callback]:
    with callback_server() as server:
        yield server


@pytest.fixture
def person(chrome: Chrome, origin: str) -> Walk:
    return Walk.fresh(chrome, origin)


def allowed(person: Walk, address: str) -> None:
    """Open the client's authorization request, and sign in and allow it."""
    person.browser.get(address)
    person.reached("/sign-in").sign_in("adult").pick("adult").reached("/oauth/consent").press("button[value=allow]")


def related(person: Walk, callback: Callback, altered: Altered = lambda arrival: arrival) -> Callable[[str], Arrival]:
    """What the person does at each address a relying party opens; ``altered`` changes the answer on its way."""

    def visit(address: str) -> Arrival:
        if address.startswith(f"{person.origin}/oauth/logout"):
            person.browser.get(address)
            return callback.next()
        allowed(person, address)
        return altered(callback.next())

    return visit


def openid_client(person: Walk, callback: Callback, altered: Altered = lambda arrival: arrival, **changes: Any) -> dict[str, Any]:
    metadata = {
        "client_name": "Family diary",
        "redirect_uris": [f"{callback.origin}/callback"],
        "post_logout_redirect_uris": [f"{callback.origin}/left"],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": SCOPE,
    }
    asked = {
        "issuer": person.origin,
        "metadata": metadata | changes.pop("metadata", {}),
        "parameters": {"aud": f"{person.origin}/fhir"} | changes.pop("parameters", {}),
        "read": f"{person.origin}/fhir/Patient/adult",
        **changes,
    }
    return converse("openid_client.mjs", asked, related(person, callback, altered))


def check_openid_client(found: dict[str, Any], origin: str) -> None:
    assert "error" not in found, found
    done = found["done"]
    assert done["claims"]["fhirUser"] == f"{origin}/fhir/Patient/adult"
    assert done["userinfo"]["sub"] == done["claims"]["sub"] == done["renewed"]["sub"]
    assert done["userinfo"]["name"] == "Alex Adult"
    assert done["read"] == ["Patient/adult", "Patient/adult"] and done["tokens"][0] != done["tokens"][1]
    assert done["left"] is True and done["ended"] == "invalid_grant"


def test_smart_108_openid_client_signs_in_reads_renews_and_signs_out(person: Walk, callback: Callback) -> None:
    found = openid_client(person, callback)
    check_openid_client(found, person.origin)
    assert found["done"]["type"] == "bearer"
    person.browser.get(f"{person.origin}/apps")
    person.reached("/sign-in")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_smart_108_openid_client_pushes_its_request_binds_its_tokens_and_is_answered_by_post(
    person: Walk, callback: Callback, method: str
) -> None:
    required = {"require_pushed_authorization_requests": True, "dpop_bound_access_tokens": True}
    metadata = {"token_endpoint_auth_method": method} | required
    arrived: list[Arrival] = []

    def kept(arrival: Arrival) -> Arrival:
        arrived.append(arrival)
        return arrival

    found = openid_client(person, callback, kept, metadata=metadata, parameters={"response_mode": "form_post"}, pushed=True, bound=True)
    check_openid_client(found, person.origin)
    assert found["done"]["type"] == "dpop"
    assert "request_uri=" in found["done"]["asked"] and "scope=" not in found["done"]["asked"]
    assert arrived[0].method == "POST" and "iss=" in arrived[0].body and "code=" in arrived[0].body


def other_issuer(arrival: Arrival) -> Arrival:
    head, _, _ = arrival.url.partition("&iss=")
    assert head != arrival.url
    return replace(arrival, url=f"{head}&iss=https%3A%2F%2Fother.example")


@pytest.mark.parametrize(
    ("altered", "checks", "refused"),
    [
        (other_issuer, {}, "iss"),
        (lambda arrival: replace(arrival, url=arrival.url.partition("&iss=")[0]), {}, "iss"),
        (lambda arrival: arrival, {"expectedNonce": "another"}, "nonce"),
    ],
    ids=["of another issuer", "without an issuer", "with another nonce"],
)
def test_smart_108_openid_client_refuses_an_answer(
    person: Walk, callback: Callback, altered: Altered, checks: dict[str, str], refused: str
) -> None:
    """The control of the tests above: the library checks what they rely on."""
    found = openid_client(person, callback, altered, checks=checks)
    assert "done" not in found and refused in found["error"]


@pytest.mark.parametrize("discovery", ["oidc", "oauth2"])
def test_smart_109_oauth4webapi_signs_in_with_its_own_key_by_each_discovery_document(
    person: Walk, callback: Callback, discovery: str
) -> None:
    found = oauth4webapi(person, callback, discovery)
    assert "error" not in found, found
    done = found["done"]
    assert done["claims"]["sub"] == done["known"]["sub"]
    assert (done["userinfo"] or {}).get("sub") == (done["claims"]["sub"] if discovery == "oidc" else None)
    assert done["known"]["active"] is True and done["known"]["patient"] == "adult"
    assert (done["read"], done["after"]) == ("adult", 401)


def test_smart_109_oauth4webapi_refuses_an_answer_to_another_request(person: Walk, callback: Callback) -> None:
    assert "state" in oauth4webapi(person, callback, "oidc", checks={"state": "another"})["error"]


def oauth4webapi(person: Walk, callback: Callback, discovery: str, **changes: Any) -> dict[str, Any]:
    metadata = {
        "client_name": "Signed diary",
        "redirect_uris": [f"{callback.origin}/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": SCOPE,
    }
    asked = {
        "issuer": person.origin,
        "discovery": discovery,
        "metadata": metadata,
        "audience": f"{person.origin}/fhir",
        "read": f"{person.origin}/fhir/Patient/adult",
        **changes,
    }
    return converse("oauth4webapi.mjs", asked, related(person, callback))


def test_smart_110_appauth_opens_the_browser_and_hears_the_answer_itself(person: Walk, command: Command, tmp_path: Path) -> None:
    opened, starter = tmp_path / "opened", tmp_path / "xdg-open"
    starter.write_text('#!/bin/sh\nprintf %s "$1" > "$OPENED.part" && mv "$OPENED.part" "$OPENED"\n')
    starter.chmod(0o755)
    port = reserved_port()
    redirect = f"http://127.0.0.1:{port}/"
    command("client", "add", "desk-app", "--name", "Desk diary", "--redirect-uri", redirect, "--scope", SCOPE)
    asked = {
        **{"issuer": person.origin, "client_id": "desk-app", "redirect_uri": redirect, "port": port, "scope": SCOPE},
        **{"audience": f"{person.origin}/fhir", "read": f"{person.origin}/fhir/Patient/adult"},
    }
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OPENED": str(opened)}

    def visit(_: str) -> Arrival:
        wait_until(opened.exists, "AppAuth opens the browser")
        allowed(person, opened.read_text())
        return Arrival("GET", redirect)

    found = converse("appauth.mjs", asked, visit, environment)
    assert "error" not in found, found
    done = found["done"]
    assert done["sent"] == done["returned"] and done["idToken"]
    assert done["userinfo"]["name"] == "Alex Adult"
    assert (done["read"], done["after"]) == ("adult", "refused")
