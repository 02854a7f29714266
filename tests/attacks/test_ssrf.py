"""Server-side request forgery (OWASP): through a client's jwks_uri, and through any other registered URL."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from fhir_server.smart import demo
from fhir_server.smart.accounts import identity_providers
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.clients import initial_access_tokens
from fhir_server.web.public_fetch import Hosts, Network, UnfetchableError, fetch, is_public
from tests.federation.environment import NORTH, Worlds
from tests.smart.environment import ASSERTION_TYPE, World, claims_of, query
from tests.smart.jwks_server import PUBLIC, Site, mode


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2001:0:7f00:1::", "ff02::1", "2001:db8::1"),
    ],
)
def test_ssrf_private_addresses_are_not_fetched(site: Site, address: str) -> None:
    mode(site.world, "production")
    site.addresses = (address,)
    assert not site.works()
    site.addresses = (PUBLIC, address)
    assert not site.works()
    assert site.asked == []
    site.addresses = (PUBLIC,)
    assert site.works()


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:2800:220:1::1"])
def test_ssrf_check_accepts_public_addresses(address: str) -> None:
    assert is_public(address)


def test_ssrf_host_is_resolved_once_and_checked_address_is_used(site: Site) -> None:
    mode(site.world, "production")
    answers = [(PUBLIC,), ("127.0.0.1",)]

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    object.__setattr__(site.world.smart, "network", Network(rebinding, httpx.MockTransport(site.answer)))
    assert site.works()
    assert [request.url.host for request in site.asked] == [PUBLIC]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://app.example/jwks",
            "http://169.254.169.254/latest",
            "ftp://app.example/",
            "file:///etc/passwd",
            "https://",
            "https://u@app.example/",
        ),
        *(
            "https://u:p@app.example/",
            "https://app.example:x/",
            "https://app.example\\@evil.example/",
            "https://app.example/#f",
            "gopher://x/",
        ),
    ],
)
def test_ssrf_only_plain_https_urls_are_fetched(site: Site, url: str) -> None:
    for hosts in Hosts:
        with pytest.raises(UnfetchableError):
            asyncio.run(fetch(site.world.smart.network, url, hosts))
    assert site.asked == []


def test_ssrf_http_to_loopback_is_fetched_in_demo_mode_only(site: Site) -> None:
    site.use("http://127.0.0.1:9999/jwks")
    site.addresses = ("127.0.0.1",)
    mode(site.world, "production")
    assert not site.works()
    mode(site.world, "demo")
    assert site.works()


# from a registration

INSIDE = (
    *(
        "https://127.0.0.1/jwks",
        "https://localhost/jwks",
        "https://10.0.0.1/jwks",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
    ),
    *(
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[fe80::1]/",
        "https://0/",
        "https://0x7f.1/",
        "https://2130706433/",
    ),
    *("https://127.1/", "https://017700000001/", "https://metadata.internal/", "https://app.example:22/"),
)


def registered(world: World, **changes: Any) -> httpx.Response:
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "private_key_jwt"}
    return world.http.post("/oauth/register", json=metadata | changes)


def used(world: World, client_id: str) -> str:
    """The error of a token request that requires the registered keys."""
    key = RSAKey.generate_key(2048, {"kid": "k"})
    claims = claims_of(world.assertion())[1] | {"iss": client_id, "sub": client_id}
    assertion = jwt.encode({"alg": "RS384", "kid": "k"}, claims, key, algorithms=["RS384"])
    form = {"grant_type": "authorization_code", "code": "x", "redirect_uri": "https://app.example/cb", "code_verifier": "v" * 50}
    form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return str(world.http.post("/oauth/token", data=form).json()["error"])


def production(world: World, site: Site, resolve: Any = None) -> dict[str, str]:
    """A production server that resolves IP addresses as the operating system does; headers with an initial access token."""
    mode(world, "production")
    object.__setattr__(world.smart, "network", Network(resolve or system, httpx.MockTransport(site.answer)))
    return {"Authorization": f"Bearer {asyncio.run(initial_access_tokens.issue(world.store, world.clock()))}"}


async def system(host: str, port: int) -> Sequence[str]:
    """The addresses of a host without a name server; some names of this test resolve to private or public addresses."""
    try:
        return [str(one[4][0]) for one in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]
    except OSError:
        return {"app.example": (PUBLIC,), "metadata.internal": ("169.254.169.254",), "localhost": ("127.0.0.1", "::1")}.get(host, ())


@pytest.mark.parametrize("url", INSIDE)
def test_ssrf_private_jwks_uri_is_never_fetched(world: World, site: Site, url: str) -> None:
    headers = production(world, site)
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "private_key_jwt"}
    answer = world.http.post("/oauth/register", json=metadata | {"jwks_uri": url}, headers=headers)
    assert answer.status_code in (201, 400)
    if answer.status_code == 201:
        assert used(world, answer.json()["client_id"]) == "invalid_client"
    assert [one.url.host for one in site.asked] == ([PUBLIC] if "app.example" in url else [])


def test_ssrf_public_jwks_uri_is_fetched(world: World, site: Site) -> None:
    """The control."""
    headers = production(world, site)
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "private_key_jwt"}
    told = world.http.post("/oauth/register", json=metadata | {"jwks_uri": "https://app.example/jwks"}, headers=headers).json()
    assert used(world, told["client_id"]) == "invalid_client"
    assert [one.url.host for one in site.asked] == [PUBLIC]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_ssrf_redirect_of_a_jwks_uri_is_not_followed(site: Site, status: int) -> None:
    assert site.works()  # the control
    site.headers, site.status = {"location": "https://127.0.0.1/jwks", "cache-control": "no-store"}, status
    site.use("https://app.example/moved")
    asked = len(site.asked)
    assert not site.works()
    assert len(site.asked) == asked + 1


@pytest.mark.parametrize("name", ["logo_uri", "client_uri", "tos_uri", "policy_uri"])
def test_ssrf_other_registration_urls_are_not_fetched_nor_embedded(world: World, site: Site, name: str) -> None:
    for url in ("https://169.254.169.254/logo.png", "https://app.example/logo.png"):
        answer = registered(world, token_endpoint_auth_method="none", **{name: url, "client_name": f"Diary of {url[8:11]}"})
        assert answer.status_code == 201, answer.text
        asked = {"client_id": answer.json()["client_id"], "redirect_uri": "https://app.example/cb", "scope": "patient/*.rs"}
        world.http.cookies.clear()
        page = world.consent_page(**asked)
        assert "Allow" in page.text
        assert "logo.png" not in page.text
    assert site.asked == []


def test_ssrf_key_urls_in_software_statements_are_not_fetched(world: World, site: Site) -> None:
    key = RSAKey.generate_key(2048, {"kid": "k"})
    header = {"alg": "RS384", "kid": "k", "jku": "https://app.example/jwks", "x5u": "https://app.example/cert"}
    statement = jwt.encode(header, {"iss": "https://app.example"}, key, algorithms=["RS384"])
    assert registered(world, token_endpoint_auth_method="none", software_statement=statement).status_code == 400
    assert site.asked == []


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("request_uri", "https://169.254.169.254/request.jwt", "request_uri_not_supported"),
        ("request_uri", "https://app.example/request.jwt", "request_uri_not_supported"),
        ("request", "eyJhbGciOiJub25lIn0.e30.", "request_not_supported"),
    ],
)
def test_ssrf_request_objects_are_refused_and_not_fetched(world: World, site: Site, name: str, value: str, error: str) -> None:
    """The metadata says that it is not supported; OpenID Connect assumes support of request_uri otherwise."""
    location = world.http.get("/oauth/authorize", params=world.asked() | {name: value}).headers["location"]
    assert (location.startswith(demo.REDIRECT), query(location)["error"]) == (True, error)
    assert world.authorize().status_code == 303  # the control
    assert site.asked == []
    assert world.http.get("/.well-known/openid-configuration").json()[f"{name}_parameter_supported"] is False


PROVIDERS = (
    "http://169.254.169.254/",
    "http://10.0.0.1/",
    "file:///etc/passwd",
    "https://u:p@idp.example/",
    "gopher://x/",
    "https://idp.example/?x",
)


@pytest.mark.parametrize("url", PROVIDERS)
def test_ssrf_provider_with_unsafe_url_is_not_registered(world: World, url: str) -> None:
    with pytest.raises(ValueError, match="issuer"):
        asyncio.run(identity_providers.add(world.smart, Provider(url, "IdP", "us", "private_key_jwt")))
    asyncio.run(identity_providers.add(world.smart, Provider("https://idp.example/", "IdP", "us", "private_key_jwt")))


def test_ssrf_a_providers_redirect_is_not_followed(worlds: Worlds) -> None:
    elsewhere = {"location": "http://169.254.169.254/latest/meta-data"}
    worlds.wire.instead["openid-configuration"] = lambda request: httpx.Response(302, headers=elsewhere)
    assert worlds.leave().status_code == 503
    assert {f"{call.url.scheme}://{call.url.netloc.decode()}" for call in worlds.wire.calls} == {NORTH}
