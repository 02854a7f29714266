"""A developer registers an app on the registration page, and a user then uses the app."""

from __future__ import annotations

import pytest

from tests.browser.browser_session import APP, Walk
from tests.browser.test_standalone_launch import expected


def registered(walk: Walk, name: str, method: str) -> dict[str, str]:
    """Submit the page.  Returns the values that it then shows, by label."""
    walk.browser.get(f"{walk.origin}/register-app")
    walk.one("#name").send_keys(name)
    walk.one("#redirects").send_keys(f"{APP}/callback")
    walk.one(f"input[name=method][value={method}]").click()
    walk.press("button.primary")
    assert walk.one("h1").text == f"{name} is registered", walk.one("main").text
    labels, values = ([one.text for one in walk.all(f".facts {tag}")] for tag in ("dt", "dd"))
    return dict(zip(labels, values, strict=True))


@pytest.mark.parametrize(("name", "method"), [("Sleep diary", "none"), ("Growth chart", "client_secret_basic")])
def test_app_registered_on_the_page_works_under_its_own_name(walk: Walk, name: str, method: str) -> None:
    told = registered(walk, name, method)
    assert ("Client secret" in told) == (method != "none")
    secret = {"clientSecret": told["Client secret"]} if "Client secret" in told else {}
    walk.start(clientId=told["Client ID"], **secret).sign_in("parent-a").pick("teen")
    assert name in walk.one("h1").text and "this device" in walk.one(".facts").text
    assert walk.allow().seen() == expected("parent-a", "teen")
    assert walk.refreshed().seen() == expected("parent-a", "teen")


def test_look_alike_app_name_is_refused_and_input_is_preserved(walk: Walk) -> None:
    walk.browser.get(f"{walk.origin}/register-app")
    walk.one("#name").send_keys("Dem0 phone app")
    walk.one("#redirects").send_keys(f"{APP}/callback")
    walk.press("button.primary")
    assert "too similar to" in walk.one("[role=alert]").text
    assert walk.one("#name").get_attribute("value") == "Dem0 phone app"
    assert walk.one("#redirects").get_attribute("value") == f"{APP}/callback"
