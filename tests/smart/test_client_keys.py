"""Clients whose keys are at an address (jwks_uri): fetched safely, kept as long as the address allows, and no longer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
import pytest
from joserfc.jwk import RSAKey

from fhir_server.smart import clients
from fhir_server.smart.client_keys import BUDGET, FLOOR, UNSAID
from fhir_server.smart.core import HOUR, MINUTE, SECOND
from fhir_server.smart.outbound import MOST, Network, Unfetchable, fetch, public
from tests.smart.world import World, private_keys

URL = "https://app.example/jwks.json"
PUBLIC = "93.184.216.34"


class Site:
    """The client's server: what it answers, and what it was asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys = private_keys(world.store, "demo-backend").as_dict(private=False)
        self.headers: dict[str, str] = {}
        self.status = 200
        self.body: bytes | None = None
        self.addresses: tuple[str, ...] = (PUBLIC,)
        self.asked: list[httpx.Request] = []
        self.use(URL)
        object.__setattr__(world.smart, "network", Network(self.resolve, httpx.MockTransport(self.answer)))

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.addresses

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        body = json.dumps(self.keys).encode() if self.body is None else self.body
        return httpx.Response(self.status, stream=httpx.ByteStream(body), headers=self.headers)

    def use(self, url: str) -> None:
        found = asyncio.run(clients.find(self.world.store, "demo-backend"))
        assert found is not None
        asyncio.run(clients.save(self.world.store, msgspec.structs.replace(found, jwks={}, jwks_uri=url)))

    def works(self, **options: Any) -> bool:
        """Whether a fresh assertion of the client gets a token."""
        self.number = getattr(self, "number", 0) + 1
        return self.world.backend(self.world.assertion(jti=f"n{self.number}", **options)).status_code == 200


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def mode(world: World, name: str) -> None:
    object.__setattr__(world.smart, "mode", name)


def test_smart_88_a_client_may_publish_its_keys_at_an_address(site: Site) -> None:
    assert site.works()
    assert site.works(alg="ES384")
    request = site.asked[0]
    assert (request.url.host, request.headers["host"], request.extensions["sni_hostname"]) == (PUBLIC, "app.example", "app.example")


def test_smart_88_the_registration_is_one_way_or_the_other(world: World) -> None:
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
        ("", UNSAID),
    ],
)
def test_smart_89_keys_are_kept_no_longer_than_their_cache_control(site: Site, cache_control: str, kept: int) -> None:
    site.headers = {"cache-control": cache_control}
    assert site.works()
    if kept:
        site.world.clock.forward(kept - 1)
        assert site.works()
        assert len(site.asked) == 1
        site.world.clock.forward(1)
    assert site.works()
    assert len(site.asked) == 2


def test_smart_89_the_time_an_answer_spent_in_caches_counts(site: Site) -> None:
    site.headers = {"cache-control": "max-age=60", "age": "50"}
    assert site.works()
    site.world.clock.forward(10 * SECOND)
    assert site.works()
    assert len(site.asked) == 2


def test_smart_89_an_unknown_key_id_has_the_keys_fetched_again_but_not_at_will(site: Site) -> None:
    whole = dict(site.keys)
    site.headers, site.keys = {"cache-control": "max-age=3600"}, {"keys": [key for key in whole["keys"] if key["kty"] == "RSA"]}
    assert site.works()
    site.keys = whole
    for _ in range(5):
        assert not site.works(alg="ES384")
    assert len(site.asked) == 1  # too soon
    site.world.clock.forward(FLOOR)
    assert site.works(alg="ES384")
    assert len(site.asked) == 2


def test_made_up_assertions_cannot_turn_us_against_the_clients_server(site: Site) -> None:
    site.headers = {"cache-control": "no-store"}
    for _ in range(BUDGET + 20):
        site.works(header={"kid": "made-up"})
    assert len(site.asked) == BUDGET
    site.world.clock.forward(MINUTE)
    assert site.works()


def test_an_assertion_that_could_not_be_right_asks_nobody(site: Site) -> None:
    assert not site.works(exp=1)
    assert not site.works(aud="https://other.example")
    assert not site.works(header={"kid": ""})
    assert site.asked == []
    assert site.works()


def test_a_key_that_is_withdrawn_stops_counting(site: Site) -> None:
    site.headers = {"cache-control": "max-age=60"}
    assert site.works()
    site.keys = {"keys": []}
    site.world.clock.forward(60 * SECOND)
    assert not site.works()


def test_smart_89_a_jku_must_be_the_registered_address(site: Site) -> None:
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
        lambda site: setattr(site, "body", b" " * (MOST + 1)),
        lambda site: setattr(site, "headers", {"content-encoding": "gzip"}),
        lambda site: setattr(site, "addresses", ()),
    ],
)
def test_an_answer_that_is_no_key_set_is_a_refusal_and_not_a_fault(site: Site, spoil: Callable[[Site], Any]) -> None:
    spoil(site)
    assert not site.works()
    assert len(site.asked) <= 1  # nothing is followed
    Site(site.world)
    assert site.world.backend(site.world.assertion(jti="control")).status_code in (200, 401)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2001:0:7f00:1::", "ff02::1", "2001:db8::1"),
    ],
)
def test_smart_ssrf_an_address_inside_our_network_is_not_asked(site: Site, address: str) -> None:
    mode(site.world, "production")
    site.addresses = (address,)
    assert not site.works()
    site.addresses = (PUBLIC, address)
    assert not site.works()
    assert site.asked == []
    site.addresses = (PUBLIC,)
    assert site.works()


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:2800:220:1::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert public(address)


def test_smart_ssrf_a_name_is_resolved_once_and_the_checked_address_is_asked(site: Site) -> None:
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
def test_smart_ssrf_only_plain_https_addresses_are_asked(site: Site, url: str) -> None:
    for local in (True, False):
        with pytest.raises(Unfetchable):
            asyncio.run(fetch(site.world.smart.network, url, local=local))
    assert site.asked == []


def test_smart_ssrf_plain_http_to_this_machine_is_for_demos_only(site: Site) -> None:
    site.use("http://127.0.0.1:9999/jwks")
    site.addresses = ("127.0.0.1",)
    mode(site.world, "production")
    assert not site.works()
    mode(site.world, "demo")
    assert site.works()


def test_the_whole_wait_is_limited(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return (PUBLIC,)

    monkeypatch.setattr("fhir_server.smart.outbound.DEADLINE", 0.05)
    with pytest.raises(Unfetchable):
        asyncio.run(fetch(Network(slow, httpx.MockTransport(site.answer)), URL, local=False))


def test_keys_of_another_kind_at_the_address_are_of_no_use(site: Site) -> None:
    other = RSAKey.generate_key(2048, auto_kid=True).as_dict(private=False)
    site.keys = {"keys": [other | {"kid": site.keys["keys"][0]["kid"]}]}
    assert not site.works()
