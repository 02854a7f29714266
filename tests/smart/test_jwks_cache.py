"""Clients with a jwks_uri: keys are fetched safely and cached only as long as the response allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
import pytest
from joserfc.jwk import RSAKey

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.jwks_cache import DEFAULT_LIFETIME, MAX_FETCHES_PER_MINUTE, MIN_REFETCH_INTERVAL
from fhir_server.smart.core.context import HOUR, MINUTE, SECOND
from fhir_server.web.public_fetch import MAX_BYTES, Hosts, Network, UnfetchableError, fetch
from tests.smart.environment import World
from tests.smart.jwks_server import PUBLIC, URL, Site
from tests.waiting import HANG


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_smart_88_client_authenticates_with_keys_from_jwks_uri(site: Site) -> None:
    assert site.works()
    assert site.works(alg="ES384")
    request = site.asked[0]
    assert (request.url.host, request.headers["host"], request.extensions["sni_hostname"]) == (PUBLIC, "app.example", "app.example")


def test_smart_88_client_needs_either_jwks_or_https_jwks_uri(world: World) -> None:
    found = asyncio.run(clients.find(world.store, "demo-backend"))
    assert found is not None
    for changes in (
        {"jwks_uri": URL},
        {"jwks": {}},
        {"jwks": {}, "jwks_uri": "http://app.example/jwks"},
        {"jwks": {}, "jwks_uri": "file:///etc/passwd"},
    ):
        with pytest.raises(ValueError, match="keys"):
            asyncio.run(clients.save(world.store, msgspec.structs.replace(found, **changes)))


@pytest.mark.parametrize(
    ("cache_control", "kept"),
    [
        ("no-store", 0),
        ("no-cache, max-age=300", 0),
        ("max-age=0", 0),
        ("max-age=nonsense", 0),
        ("public, max-age=60", 60 * SECOND),
        ("max-age=31536000", HOUR),
        ("", DEFAULT_LIFETIME),
    ],
)
def test_smart_89_jwks_cache_respects_cache_control(site: Site, cache_control: str, kept: int) -> None:
    site.headers = {"cache-control": cache_control}
    assert site.works()
    if kept:
        site.world.clock.forward(kept - 1)
        assert site.works()
        assert len(site.asked) == 1
        site.world.clock.forward(1)
    assert site.works()
    assert len(site.asked) == 2


def test_smart_89_jwks_cache_respects_the_age_header(site: Site) -> None:
    site.headers = {"cache-control": "max-age=60", "age": "50"}
    assert site.works()
    site.world.clock.forward(10 * SECOND)
    assert site.works()
    assert len(site.asked) == 2


def test_smart_89_unknown_kid_refetches_jwks_at_a_limited_rate(site: Site) -> None:
    whole = dict(site.keys)
    site.headers, site.keys = {"cache-control": "max-age=3600"}, {"keys": [key for key in whole["keys"] if key["kty"] == "RSA"]}
    assert site.works()
    site.keys = whole
    for _ in range(5):
        assert not site.works(alg="ES384")
    assert len(site.asked) == 1  # within the minimum interval
    site.world.clock.forward(MIN_REFETCH_INTERVAL)
    assert site.works(alg="ES384")
    assert len(site.asked) == 2


def test_forged_assertions_do_not_flood_client_jwks_uri(site: Site) -> None:
    site.headers = {"cache-control": "no-store"}
    for _ in range(MAX_FETCHES_PER_MINUTE + 20):
        site.works(header={"kid": "made-up"})
    assert len(site.asked) == MAX_FETCHES_PER_MINUTE
    site.world.clock.forward(MINUTE)
    assert site.works()


def test_invalid_assertion_does_not_fetch_jwks(site: Site) -> None:
    assert not site.works(exp=1)
    assert not site.works(aud="https://other.example")
    assert not site.works(header={"kid": ""})
    assert site.asked == []
    assert site.works()


def test_withdrawn_key_is_refused_after_cache_expiry(site: Site) -> None:
    site.headers = {"cache-control": "max-age=60"}
    assert site.works()
    site.keys = {"keys": []}
    site.world.clock.forward(60 * SECOND)
    assert not site.works()


def test_smart_89_jku_must_equal_the_registered_jwks_uri(site: Site) -> None:
    assert site.works(header={"jku": URL})
    for jku in ("https://app.example/other", "https://evil.example/jwks.json", f"{URL}?x"):
        assert not site.works(header={"jku": jku}), jku
    assert {str(request.url.path) for request in site.asked} == {"/jwks.json"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda site: setattr(site, "status", 404),
        lambda site: (setattr(site, "status", 302), setattr(site, "headers", {"location": "http://127.0.0.1/"})),
        lambda site: setattr(site, "body", b"no json"),
        lambda site: setattr(site, "body", b"[]"),
        lambda site: setattr(site, "body", b'{"keys": 1}'),
        lambda site: setattr(site, "body", b'{"keys": [1]}'),
        lambda site: setattr(site, "body", b"[" * 50_000),
        lambda site: setattr(site, "body", b" " * (MAX_BYTES + 1)),
        lambda site: setattr(site, "headers", {"content-encoding": "gzip"}),
        lambda site: setattr(site, "addresses", ()),
    ],
)
def test_unusable_jwks_response_refuses_the_assertion(site: Site, spoil: Callable[[Site], Any]) -> None:
    spoil(site)
    assert not site.works()
    assert len(site.asked) <= 1  # redirects are not followed
    Site(site.world)
    assert site.world.backend(site.world.assertion(jti="control")).status_code in (200, 401)


def test_slow_jwks_fetch_times_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(HANG)
        return (PUBLIC,)

    monkeypatch.setattr("fhir_server.web.public_fetch.DEADLINE", 0.05)
    with pytest.raises(UnfetchableError):
        asyncio.run(fetch(Network(slow, httpx.MockTransport(site.answer)), URL, Hosts.PUBLIC))


def test_unrelated_key_under_a_known_kid_is_refused(site: Site) -> None:
    other = RSAKey.generate_key(2048, auto_kid=True).as_dict(private=False)
    site.keys = {"keys": [other | {"kid": site.keys["keys"][0]["kid"]}]}
    assert not site.works()
