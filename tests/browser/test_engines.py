"""Sign-in, "Allow", cancelling and a launch in Chromium, Firefox and WebKit, with an app that redirects to another origin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from selenium.webdriver import Chrome

from tests.browser.bidi_browser import firefox
from tests.browser.browser_session import PASSWORD, STATE
from tests.browser.conftest import Command
from tests.browser.engines import Browser, DriverBrowser, Person
from tests.browser.redirecting_app import other_origin, redirecting_app
from tests.browser.webkit_browser import mini_browser, webkit

CLIENT = "engines"


@pytest.fixture(scope="module")
def app_origin(command: Command) -> Iterator[str]:
    with redirecting_app(command, CLIENT) as origin:
        yield origin


@pytest.fixture(scope="module")
def chromium_window(chrome: Chrome) -> Browser:
    return DriverBrowser(chrome)


@pytest.fixture(scope="module")
def firefox_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = shutil.which("firefox-esr") or shutil.which("firefox")
    assert binary, "Firefox is missing: run scripts/browser.sh (make test does)."
    with firefox(binary, tmp_path_factory.mktemp("firefox")) as window:
        yield window


@pytest.fixture(scope="module")
def webkit_window() -> Iterator[Browser]:
    driver, display_server = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    assert driver and display_server and mini_browser(), "WebKit's driver or Xvfb is missing: run scripts/browser.sh (make test does)."
    with webkit(driver, display_server) as window:
        yield window


@pytest.fixture(params=["chromium", "firefox", "webkit"])
def person(request: pytest.FixtureRequest, origin: str) -> Person:
    """Someone with a browser of each engine, who is not signed in."""
    return Person(request.getfixturevalue(f"{request.param}_window"), origin, PASSWORD)


def asked(origin: str, app_origin: str) -> str:
    """The app's authorization request."""
    parameters = {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": f"{app_origin}/hop",
        "scope": "launch/patient patient/*.rs",
        "state": STATE,
        "aud": f"{origin}/fhir",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",  # RFC 7636, appendix B
        "code_challenge_method": "S256",
    }
    return f"{origin}/oauth/authorize?{urlencode(parameters)}"


def answer(person: Person, app_origin: str) -> dict[str, list[str]]:
    """What arrived where the app's redirects end."""
    return parse_qs(urlsplit(person.reached(f"{other_origin(app_origin)}/end?")).query)


@pytest.mark.parametrize(("button", "given"), [("allow", "code"), ("deny", "error")])
def test_smart_114_consent_reaches_an_app_that_redirects_elsewhere(
    person: Person, origin: str, app_origin: str, button: str, given: str
) -> None:
    person.open(asked(origin, app_origin)).sign_in("adult").click("input[name=patient][value=adult]").click("button.primary")
    person.reached(f"{origin}/oauth/consent")
    person.click(f"button[value={button}]")
    found = answer(person, app_origin)
    assert given in found and found["state"] == [STATE] and found["iss"] == [origin]


def test_smart_114_person_cancels_before_signing_in_and_the_app_learns_it(person: Person, origin: str, app_origin: str) -> None:
    person.open(asked(origin, app_origin)).click("form[action='/oauth/cancel'] button")
    assert answer(person, app_origin)["error"] == ["access_denied"]


def test_smart_114_app_opens_from_a_chart_and_redirects_elsewhere(person: Person, origin: str, app_origin: str) -> None:
    person.open(f"{origin}/ehr").sign_in("clinician").click("a[href='/ehr/adult']")
    person.reached(f"{origin}/ehr/adult")
    person.click(f"button[value={CLIENT}]")
    found = answer(person, app_origin)
    assert found["launch"] and found["iss"] == [f"{origin}/fhir"]
