from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_server.cli import main
from fhir_server.smart.accounts import identity_providers
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.core.context import SmartContext
from tests.federation.environment import NORTH, OURS, SOUTH, Worlds
from tests.served import make_store
from tests.smart.environment import World

GOOD = Provider("https://id.example/realm", "Example ID", "us", "client_secret")


def _in(mode: str, key: str = "k" * 32) -> SmartContext:
    return replace(World().smart, mode=mode, key=key)


def _added(smart: SmartContext, provider: Provider, secret: str = "secret") -> None:
    asyncio.run(identity_providers.add(smart, provider, secret))


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({"issuer": "http://id.example"}, "secret"),
        ({"issuer": "https://id.example/?a=b"}, "secret"),
        ({"issuer": "https://id.example/#f"}, "secret"),
        ({"issuer": "https://u:p@id.example"}, "secret"),
        ({"issuer": "javascript:alert(1)"}, "secret"),
        ({"issuer": "http://127.0.0.1:7001"}, "secret"),
        ({"label": " "}, "secret"),
        ({"client_id": ""}, "secret"),
        ({}, ""),
        ({"method": "private_key_jwt"}, "secret"),
    ],
)
def test_unsafe_identity_provider_is_not_registered(changes: dict[str, str], secret: str) -> None:
    smart = _in("production")
    given = {name: getattr(GOOD, name) for name in ("issuer", "label", "client_id", "method")} | changes
    with pytest.raises(ValueError):
        _added(smart, Provider(**given), secret)  # type: ignore[arg-type]
    assert asyncio.run(identity_providers.list_all(smart.store)) == ()
    _added(smart, GOOD)
    assert len(asyncio.run(identity_providers.list_all(smart.store))) == 1


def test_server_refuses_itself_as_identity_provider() -> None:
    smart = _in("test")
    with pytest.raises(ValueError, match="its own"):
        _added(smart, Provider(smart.origin, "Us", "us", "client_secret"))
    _added(smart, Provider(NORTH, "North", "us", "client_secret"))


def test_production_refuses_a_provider_secret_without_a_secret_key() -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_SECRET_KEY"):
        _added(_in("production", key=""), GOOD)
    _added(_in("production", key=""), Provider(GOOD.issuer, "X", "us", "private_key_jwt"), "")


def test_each_provider_has_its_own_redirect_uri() -> None:
    smart = _in("test")
    places = {identity_providers.redirect_uri(smart, Provider(issuer, "X", "us", "private_key_jwt")) for issuer in (NORTH, SOUTH, OURS)}
    assert len(places) == 3


@pytest.mark.parametrize("sub", ["", "x" * 256, "tab\t", "ü"])
def test_invalid_subject_is_not_linked(worlds: Worlds, sub: str) -> None:
    with pytest.raises(ValueError, match="255"):
        asyncio.run(identity_providers.link(worlds.ours.store, NORTH, sub, "adult"))


def test_link_requires_provider_account_and_unlinked_subject(worlds: Worlds) -> None:
    store = worlds.ours.store
    for issuer, username, words in (("https://other.example", "adult", "provider"), (NORTH, "nobody", "user")):
        with pytest.raises(ValueError, match=words):
            asyncio.run(identity_providers.link(store, issuer, "sub-1", username))
    asyncio.run(identity_providers.link(store, NORTH, "sub-1", "adult"))
    asyncio.run(identity_providers.link(store, NORTH, "sub-1", "Adult"))
    with pytest.raises(ValueError, match="unlink"):
        asyncio.run(identity_providers.link(store, NORTH, "sub-1", "parent-b"))
    assert asyncio.run(identity_providers.unlink(store, NORTH, "sub-1"))
    assert not asyncio.run(identity_providers.unlink(store, NORTH, "sub-1"))
    asyncio.run(identity_providers.link(store, NORTH, "sub-1", "parent-b"))


def test_provider_commands_add_link_list_unlink_and_remove(tmp_path: Path) -> None:
    environment = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_STORE": f"sqlite:///{tmp_path}/x.sqlite", "FHIR_SERVER_ORIGIN": OURS}
    make_store(environment["FHIR_SERVER_STORE"])

    def run(*words: str, given: str = "") -> tuple[int, str]:
        done = CliRunner().invoke(main, words, env=environment, input=given)
        return done.exit_code, done.output

    assert run("user", "add", "pat", given="Long-enough-1\nLong-enough-1\n")[0] == 0
    code, said = run("provider", "add", NORTH, "--label", "North", "--client-id", "us", given="secret\n")
    assert code == 0 and f"{OURS}/sign-in/from/" in said and "secret\n" not in said
    code, said = run("provider", "add", SOUTH, "--label", "South", "--client-id", "us", "--method", "private_key_jwt")
    assert code == 0 and f"{OURS}/oauth/jwks" in said
    assert run("provider", "link", NORTH, "sub-1", "pat")[0] == 0
    assert run("provider", "link", NORTH, "sub-2", "nobody")[0] == 1
    listed = run("provider", "list")[1]
    assert all(text in listed for text in (NORTH, SOUTH, "sub-1", "pat")) and "secret" not in listed.replace("client_secret", "")
    assert run("provider", "unlink", NORTH, "sub-1")[0] == 0
    assert run("provider", "unlink", NORTH, "sub-1")[0] == 1
    assert run("provider", "remove", NORTH)[0] == 0
    assert run("provider", "remove", NORTH)[0] == 1
    assert NORTH not in run("provider", "list")[1]
