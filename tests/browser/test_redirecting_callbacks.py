"""Callbacks and launch URIs that redirect to another origin, as brokers and apps with several hosts do."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from selenium.webdriver import Chrome

from tests.browser.browser_session import Walk
from tests.browser.conftest import Command


class _Hop(BaseHTTPRequestHandler):
    """``/hop`` redirects to another origin of the same server; ``/end`` answers with a page."""

    def do_GET(self) -> None:
        if self.path.startswith("/hop"):
            self.send_response(302)
            other = f"http://localhost:{self.server.server_address[1]}"
            self.send_header("Location", f"{other}/end{self.path.removeprefix('/hop')}")
            self.end_headers()
            return
        body = b"<!doctype html><title>App</title><p id=arrived>arrived</p>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def hop(command: Command) -> Iterator[str]:
    """The origin of an app whose callback and launch URI redirect to another origin; it is registered as ``hop``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hop) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_address[1]}"
        command(
            *("client", "add", "hop", "--name", "Hopping app", "--redirect-uri", f"{origin}/hop", "--launch-uri", f"{origin}/hop"),
            *("--scope", "openid fhirUser launch launch/patient patient/*.rs user/*.rs"),
        )
        command("client", "approve-for-staff", "hop")
        yield origin
        server.shutdown()


def _other(origin: str) -> str:
    return origin.replace("127.0.0.1", "localhost")


def _consent(walk: Walk, hop: str) -> Walk:
    asked = {"client_id": "hop", "redirect_uri": f"{hop}/hop", "scope": "launch/patient patient/*.rs"}
    return walk.ask(**asked).sign_in("adult").pick("adult").reached("/oauth/consent")


@pytest.mark.parametrize(("button", "answer"), [("allow", "code="), ("deny", "error=access_denied")])
def test_answer_reaches_an_app_that_redirects_elsewhere(chrome: Chrome, origin: str, hop: str, button: str, answer: str) -> None:
    walk = _consent(Walk.fresh(chrome, origin), hop)
    walk.press(f"button[value={button}]")
    walk.until_at(f"{_other(hop)}/end")
    assert walk.text("arrived") == "arrived" and answer in walk.browser.current_url


def test_answer_reaches_the_app_without_scripts(chrome_without_scripts: Chrome, origin: str, hop: str) -> None:
    walk = _consent(Walk.fresh(chrome_without_scripts, origin), hop)
    walk.press("button[value=allow]")
    walk.until_at(f"{_other(hop)}/end")
    assert "code=" in walk.browser.current_url


def test_back_button_after_allowing_answers_nothing_twice(chrome: Chrome, origin: str, hop: str) -> None:
    walk = _consent(Walk.fresh(chrome, origin), hop)
    walk.press("button[value=allow]")
    walk.until_at(f"{_other(hop)}/end")
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
    walk.until_at(f"{_other(hop)}/end")
    assert "launch=" in walk.browser.current_url
