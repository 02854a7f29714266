from __future__ import annotations

import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import password_sign_in, users
from tests.attacks.environment import House
from tests.federation.environment import Worlds
from tests.smart.environment import World
from tests.smart.jwks_server import Site


@pytest.fixture
def world() -> World:
    """The authorization server alone, with the demo users and apps."""
    return World()


@pytest.fixture
def house() -> House:
    """The whole server at one origin: sign-in, portal, links, FHIR API."""
    return House()


@pytest.fixture
def worlds() -> Worlds:
    """Three issuers; two of them are identity providers of the first."""
    return Worlds()


@pytest.fixture
def site(world: World) -> Site:
    """A client's own server that publishes its keys."""
    return Site(world)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of attempts without the cost of their hashes."""

    async def matches(user: users.User | None, password: str) -> bool:
        return user is not None and password == demo.PASSWORD

    monkeypatch.setattr(password_sign_in, "matches_password", matches)
