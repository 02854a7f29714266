from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from fhir_server.linking import organizations, token_encryption
from fhir_server.linking.context import LinkEndedError
from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.outbound.json_client import origin_of
from tests.smart.environment import World

GOOD = Organization("north", "North Hospital", "https://north.example/api/fhir", "us")


def _in(mode: str) -> SmartContext:
    return replace(World().smart, mode=mode)


def test_organization_is_added_listed_and_removed() -> None:
    smart = _in("production")

    async def story() -> None:
        await organizations.add(smart, GOOD)
        assert await organizations.list_all(smart.store) == (GOOD,)
        assert await organizations.find(smart.store, "north") == GOOD
        assert await organizations.remove(smart.store, "north")
        assert await organizations.list_all(smart.store) == ()

    asyncio.run(story())


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "No Good"},
        {"name": " "},
        {"client_id": ""},
        {"base": "http://north.example/fhir"},
        {"base": "https://north.example/fhir/"},
        {"base": "https://north.example/fhir?x=1"},
        {"base": "https://u:p@north.example/fhir"},
        {"base": "https:///fhir"},
        {"base": "https://north.example:x/fhir"},
        {"base": "ftp://north.example"},
        {"sign_in": "http://sign-in.north.example"},
        {"sign_in": "https://sign-in.north.example/path"},
    ],
    ids=str,
)
def test_unsafe_organization_is_refused(changes: dict[str, str]) -> None:
    smart = _in("production")
    with pytest.raises(ValueError):
        asyncio.run(organizations.add(smart, msgspec.structs.replace(GOOD, **changes)))
    assert asyncio.run(organizations.list_all(smart.store)) == ()


@pytest.mark.parametrize(("mode", "allowed"), [("demo", True), ("test", True), ("production", False)])
@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost", "[::1]:80"])
def test_http_base_is_allowed_on_loopback_outside_production(mode: str, allowed: bool, host: str) -> None:
    smart, local = _in(mode), msgspec.structs.replace(GOOD, base=f"http://{host}/fhir")
    if allowed:
        asyncio.run(organizations.add(smart, local))
    else:
        with pytest.raises(ValueError):
            asyncio.run(organizations.add(smart, local))
    with pytest.raises(ValueError):
        asyncio.run(organizations.add(smart, msgspec.structs.replace(GOOD, base="http://10.0.0.1/fhir")))


def test_organization_authority_is_base_or_registered_origin() -> None:
    assert GOOD.authority == "https://north.example"
    assert msgspec.structs.replace(GOOD, sign_in="https://login.example").authority == "https://login.example"
    assert origin_of("https://North.example:443/x") == "https://north.example"
    assert origin_of("https://[2001:db8::1]:8443/x") == "https://[2001:db8::1]:8443"


@pytest.mark.parametrize("key", ["", "k" * 40])
def test_encrypted_tokens_decrypt_only_with_their_own_key(key: str) -> None:
    smart, another = replace(World().smart, key=key), World().smart

    async def story() -> None:
        sealed = await token_encryption.encrypt(smart, b"token")
        assert b"token" not in sealed
        assert await token_encryption.decrypt(smart, sealed) == b"token"
        with pytest.raises(LinkEndedError):
            await token_encryption.decrypt(replace(smart, key="other" * 10), sealed)
        with pytest.raises(LinkEndedError):
            await token_encryption.decrypt(another, sealed)

    asyncio.run(story())
