"""Connected apps: what the page lists, and what ending one does."""

from __future__ import annotations

from tests.portal.world import Form, World

NONE = "No app has access through you"


def test_an_app_is_listed_with_its_record_and_its_scopes_in_words(world: World) -> None:
    adult = world.signed_in("adult")
    assert NONE in adult.get("/apps").text
    world.token("adult", "adult", scope="patient/Immunization.rs patient/Observation.rs")
    page = adult.get("/apps").text
    words = ("Vaccinations: read", "Lab results and other observations: read")
    for text in ("Demo phone app", "Alex Adult", "21 November 2026", *words):
        assert text in page


def test_ending_an_app_stops_its_token_at_once_and_no_other(world: World) -> None:
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


def test_nobody_sees_or_ends_what_somebody_else_has_granted(world: World) -> None:
    token = world.token("adult", "adult")
    handle = Form(world.signed_in("adult").get("/apps").text, "/apps").forms[0]["app"]
    other = world.signed_in("proxy-full")
    assert NONE in other.get("/apps").text
    form_token = other.get("/accept").text.partition('name="token" value="')[2].partition('"')[0]
    assert other.post("/apps", token=form_token, app=handle).status_code == 400
    assert world.status(token) == 200


def test_an_app_for_a_record_that_has_closed_is_listed_without_its_name(world: World) -> None:
    world.token("proxy-full", "adult")
    proxy = world.signed_in("proxy-full")
    assert "Alex Adult" in proxy.get("/apps").text
    assert world.signed_in("adult").send("/sharing", "/sharing/end").status_code == 303
    page = proxy.get("/apps").text
    assert "Demo phone app" in page and "Alex Adult" not in page
