"""Each organization has a redirect URI of its own; those of an earlier version share one until they are registered again."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.linking import organizations
from fhir_server.linking.organizations import Organization
from tests.linking.environment import OURS
from tests.linking.odd_partners import ODD, OddWorld

EVIL = msgspec.structs.replace(ODD, id="evil", name="Evil Health", client_id="evil-client")
SHARED = f"{OURS}/links/callback"


def _worlds(odd: Organization, evil: Organization) -> OddWorld:
    """This server with an honest organization and one whose authorization server hands on answers; neither sends ``iss``."""
    world = OddWorld({}, odd)
    asyncio.run(organizations.add(world.ours.smart, evil))
    return world


def _asked(world: OddWorld, organization: str) -> dict[str, str]:
    page = world.ours.http.post("/links", data={"organization": organization, "token": world.token()})
    url = page.text.partition('<a href="http')[2].partition('"')[0].replace("&amp;", "&")
    return dict(httpx.URL("http" + url).params)


def _answered(world: OddWorld, path: str, state: str) -> httpx.Response:
    return world.ours.http.get(path, params={"code": "honest-code", "state": state})


def test_link_request_names_the_organizations_own_redirect_uri() -> None:
    world = _worlds(ODD, EVIL)
    assert [_asked(world, id)["redirect_uri"] for id in ("odd", "evil")] == [f"{SHARED}/odd", f"{SHARED}/evil"]
    page = world.linked()
    assert "Potassium" in world.read(page).lines
    assert world.partner.forms("/token")[0]["redirect_uri"] == f"{SHARED}/odd"


def _own(organization: Organization, value: bool) -> Organization:
    return msgspec.structs.replace(organization, own_redirect_uri=value)


@pytest.mark.parametrize("path", ["/links/callback/odd", "/links/callback", "/links/callback/nobody", "/links/callback/"])
def test_mix_up_link_response_at_another_redirect_uri_links_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    # The evil server sends the browser on to the honest one, which answers at the honest one's redirect URI.
    world = _worlds(ODD, EVIL)
    state = _asked(world, "evil")["state"]
    with caplog.at_level(logging.WARNING, "fhir_server.linking"):
        answer = _answered(world, path, state)
    assert answer.status_code in (400, 404, 307)
    assert world.partner.asked("/token") == 0
    if answer.status_code == 400:
        assert "does not belong to a link that you just started" in answer.text
        assert caplog.messages == ["Organization evil: a link was refused: its response came to the redirect URI of another organization."]


@pytest.mark.parametrize(("odd_is_own", "evil_is_own"), [(True, False), (False, True)])
def test_mix_up_between_shared_and_own_redirect_uri_links_nothing(odd_is_own: bool, evil_is_own: bool) -> None:
    world = _worlds(_own(ODD, odd_is_own), _own(EVIL, evil_is_own))
    honest = "/links/callback/odd" if odd_is_own else "/links/callback"
    assert _answered(world, honest, _asked(world, "evil")["state"]).status_code == 400
    assert world.partner.asked("/token") == 0
    assert _answered(world, honest, _asked(world, "odd")["state"]).status_code == 303  # the control


def test_organization_of_an_earlier_version_keeps_the_shared_uri() -> None:
    world = OddWorld({}, ODD)
    earlier = {"id": "odd", "name": "Odd Health", "base": ODD.base, "client_id": ODD.client_id}
    text = msgspec.json.encode(earlier)
    asyncio.run(world.ours.store.key_values.put("linked-organisation", "odd", text, 2**62))
    asked = world.asked_for()
    assert asked["redirect_uri"] == SHARED
    assert "Potassium" in world.read(world.linked()).lines


def test_links_stay_when_an_organization_gets_its_own_uri() -> None:
    world = OddWorld({}, _own(ODD, False))
    page = world.linked()
    asyncio.run(organizations.add(world.ours.smart, ODD))
    assert "Potassium" in world.read(page).lines
    assert world.asked_for()["redirect_uri"] == f"{SHARED}/odd"


def _many(number: int, **changes: Any) -> Organization:
    return msgspec.structs.replace(ODD, id=f"o{number}", name=f"Clinic {number:02}", place="Shelbyville", **changes)


def test_long_list_of_organizations_has_a_search() -> None:
    world = OddWorld({})
    assert "Name or place" not in world.ours.http.get("/links").text
    for number in range(60):
        asyncio.run(organizations.add(world.ours.smart, _many(number)))
    page = world.ours.http.get("/links").text
    assert "Name or place of the health system" in page
    assert page.count("Link Clinic ") == 50
    assert "There are others. Search for part of the name or the place." in page
    found = world.ours.http.get("/links", params={"find": "SPRING odd"}).text
    assert "Link Odd Health, Springfield" in found
    assert "Link Clinic" not in found
    assert "No health system that you can link has this name or place." in world.ours.http.get("/links?find=x%3Cb%3E").text
    assert "<b>" not in world.ours.http.get("/links?find=x%3Cb%3E").text
