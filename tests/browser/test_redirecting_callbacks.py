"""Callbacks and launch URIs that redirect to another origin, as brokers and apps with several hosts do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.browser.browser_session import Walk
from tests.browser.conftest import Command
from tests.browser.redirecting_app import other_origin, redirecting_app


@pytest.fixture(scope="module")
def hop(command: Command) -> Iterator[str]:
    """The origin of the app; it is registered as ``hop``."""
    with redirecting_app(command, "hop") as origin:
        yield origin


def _consent(walk: Walk, hop: str) -> Walk:
    asked = {"client_id": "hop", "redirect_uri": f"{hop}/hop", "scope": "launch/patient patient/*.rs"}
    return walk.ask(**asked).sign_in("adult").pick("adult").reached("/oauth/consent")


@pytest.mark.parametrize(("button", "answer"), [("allow", "code="), ("deny", "error=access_denied")])
def test_answer_reaches_an_app_that_redirects_elsewhere(chrome: Chrome, origin: str, hop: str, button: str, answer: str) -> None:
    walk = _consent(Walk.fresh(chrome, origin), hop)
    walk.press(f"button[value={button}]")
    walk.until_at(f"{other_origin(hop)}/end")
    assert walk.text("arrived") == "arrived" and answer in walk.browser.current_url


def test_answer_reaches_the_app_without_scripts(chrome_without_scripts: Chrome, origin: str, hop: str) -> None:
    walk = _consent(Walk.fresh(chrome_without_scripts, origin), hop)
    walk.press("button[value=allow]")
    walk.until_at(f"{other_origin(hop)}/end")
    assert "code=" in walk.browser.current_url


def test_back_button_after_allowing_answers_nothing_twice(chrome: Chrome, origin: str, hop: str) -> None:
    walk = _consent(Walk.fresh(chrome, origin), hop)
    walk.press("button[value=allow]")
    walk.until_at(f"{other_origin(hop)}/end")
    first = walk.browser.current_url
    walk.browser.back()
    walk.until_at(origin)
    assert "code=" not in walk.browser.page_source
    if walk.all("button[value=allow]"):  # the consent page from the browser's cache
        walk.press("button[value=allow]")
        assert "already answered" in walk.one(".lead").text
    assert walk.browser.current_url != first


def test_launch_reaches_an_app_that_redirects_elsewhere(chrome: Chrome, origin: str, hop: str) -> None:
    walk = Walk.fresh(chrome, origin)
    walk.browser.get(f"{origin}/ehr")
    walk.sign_in("clinician").press("a[href='/ehr/adult']")
    walk.press("button[value=hop]")
    walk.until_at(f"{other_origin(hop)}/end")
    assert "launch=" in walk.browser.current_url
