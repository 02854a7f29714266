"""Connected apps: listing them, and ending their access."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import DAY, digest
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import tokens
from tests.portal.environment import Form, World

NONE = "You have no connected apps"


def test_connected_app_is_listed_with_record_and_scopes(world: World) -> None:
    adult = world.signed_in("adult")
    assert NONE in adult.get("/apps").text
    world.token("adult", "adult", scope="patient/Immunization.rs patient/Observation.rs")
    page = adult.get("/apps").text
    words = ("Vaccinations: read", "Lab results and other observations: read")
    for text in ("Demo phone app", "Alex Adult", "21 November 2026", *words):
        assert text in page


def test_ending_app_access_revokes_only_its_token_immediately(world: World) -> None:
    ended, kept = world.token("adult", "adult", "one"), world.token("adult", "adult", "two", "patient/Patient.r")
    adult = world.signed_in("adult")
    assert (world.status(ended), world.status(kept)) == (200, 200)
    page = adult.get("/apps").text
    forms = Form(page, "/apps").forms
    assert len(forms) == 2
    which = 0 if "All kinds" in page.partition("</li>\n  <li>")[0] else 1
    assert adult.post("/apps", **forms[which]).status_code == 303
    assert (world.status(ended), world.status(kept)) == (401, 200)
    assert adult.post("/apps", **forms[which]).status_code == 400


def test_grants_of_another_person_cannot_be_listed_or_ended(world: World) -> None:
    token = world.token("adult", "adult")
    handle = Form(world.signed_in("adult").get("/apps").text, "/apps").forms[0]["app"]
    other = world.signed_in("proxy-full")
    assert NONE in other.get("/apps").text
    form_token = other.get("/accept").text.partition('name="token" value="')[2].partition('"')[0]
    assert other.post("/apps", token=form_token, app=handle).status_code == 400
    assert world.status(token) == 200


def test_connected_app_hides_the_name_of_a_closed_record(world: World) -> None:
    world.token("proxy-full", "adult")
    proxy = world.signed_in("proxy-full")
    assert "Alex Adult" in proxy.get("/apps").text
    assert world.signed_in("adult").send("/sharing", "/sharing/end").status_code == 303
    page = proxy.get("/apps").text
    assert "Demo phone app" in page and "Alex Adult" not in page


def test_connected_app_shows_dates_and_withheld_categories(world: World) -> None:
    async def renewed() -> None:
        grant = TokenGrant("demo-public", "patient/*.rs", "family", "adult", "adult", withheld=("HIV", "MH", "UNCLASSIFIED"))
        first = await tokens.issue(world.store, grant, world.clock(), refresh=grant.scope)
        world.clock.forward(30 * DAY)
        kept = await token_grants.find(world.store, token_grants.REFRESH, digest(first.refresh or ""), world.clock())
        assert kept is not None
        await tokens.issue(world.store, kept, world.clock(), refresh=kept.scope)
        await world.store.key_values.pop(token_grants.REFRESH, digest(first.refresh or ""), world.clock())

    asyncio.run(renewed())
    page = world.signed_in("adult").get("/apps").text
    for text in ("21 November 2026", "21 December 2026", "Not shared", "HIV tests and care", "Mental health"):
        assert text in page
    assert "UNCLASSIFIED" not in page and "Drug tests" not in page


def test_connected_app_without_withheld_categories_omits_the_line(world: World) -> None:
    world.token("adult", "adult")
    page = world.signed_in("adult").get("/apps").text
    assert "Connected since" in page and "Not shared" not in page and "Last renewed" not in page


def test_connected_app_that_was_renamed_is_shown_as_changed(world: World) -> None:
    async def given() -> str:
        app = Client("own", "Heart diary", "app", "none", "patient/*.rs", ("https://app.example/cb",), registration_token_hash="x")
        grant = TokenGrant("own", "patient/*.rs", "family", "adult", "adult", app=app.identity)
        await clients.save(world.store, replace(app, name="Ad network"))
        return (await tokens.issue(world.store, grant, world.clock())).access

    token = asyncio.run(given())
    page = world.signed_in("adult").get("/apps").text
    assert '<h2 class="name">Heart diary</h2>' in page and "It is now called Ad network, on app.example" in page
    assert world.status(token) == 401
