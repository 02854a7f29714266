"""One demo server, one app server and one browser for all browser tests."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.browser.browser_session import APP, Walk
from tests.demo_server import DemoServer, demo_server
from tests.waiting import HANG, wait_until

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
SERVED = {
    "/": HERE / "app/index.html",
    "/launch": HERE / "app/launch.html",
    "/callback": HERE / "app/callback.html",
    "/oidc": HERE / "app/oidc.html",
    "/fhir-client.min.js": MODULES / "fhirclient/build/fhir-client.min.js",
    "/oidc-client-ts.min.js": MODULES / "oidc-client-ts/dist/browser/oidc-client-ts.min.js",
}
Command = Callable[..., str]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900"),
)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with demo_server(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture(scope="session")
def environment(demo: DemoServer) -> dict[str, str]:
    """The settings of the demo server, as environment variables."""
    return demo.environment


@pytest.fixture(scope="session")
def origin(demo: DemoServer) -> str:
    """Origin of the demo server."""
    return demo.origin


@pytest.fixture(scope="session")
def command(demo: DemoServer) -> Command:
    """Run ``fhir-server`` with these arguments while the server runs, and return its output."""
    return demo.command


@pytest.fixture
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Origin of the SMART app's pages, which the demo client's redirect URIs require.

    One test at a time has it: where tests run in several processes, the others wait for their turn.
    """
    missing = [name for name, path in SERVED.items() if not path.is_file()]
    assert not missing, f"{missing} are missing: run `npm ci` in tests/browser (make test does)."
    turn = tmp_path_factory.getbasetemp().parent / "the-app-s-port"  # one for all processes of a run
    with turn.open("w") as file, _app_server(file) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield APP
        server.shutdown()


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Debian's Chromium."""
    with _started(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="session")
def chrome_without_scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Chromium with JavaScript turned off in its settings."""
    with _started(tmp_path_factory.mktemp("profile"), {"profile.managed_default_content_settings.javascript": 2}) as driver:
        yield driver


@pytest.fixture
def walk(chrome: Chrome, app: str, origin: str) -> Walk:
    """A browser without a session, in a desktop-size window."""
    return Walk.fresh(chrome, origin)


def _started(profile: Path, preferences: dict[str, object] | None = None) -> Chrome:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser and driver, "Chromium and its driver are missing: run scripts/browser.sh (make test does)."
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", preferences or {})
    chrome = Chrome(options, ChromeService(driver))
    chrome.set_script_timeout(HANG)
    chrome.set_page_load_timeout(HANG)
    return chrome


def _app_server(turn: IO[str]) -> ThreadingHTTPServer:
    fcntl.flock(turn, fcntl.LOCK_EX)  # until the file is closed; those that wait get it in the order in which they came
    made: list[ThreadingHTTPServer] = []

    def bound() -> bool:
        """Another run of the tests on this machine may have the port, for the length of a test."""
        with suppress(OSError):
            made.append(ThreadingHTTPServer(("127.0.0.1", 8765), _AppFiles))
        return bool(made)

    wait_until(bound, "port 8765 becomes free, which the demo client's redirect URI names")
    return made[0]


class _AppFiles(SimpleHTTPRequestHandler):
    """The apps' pages and the client libraries."""

    def translate_path(self, path: str) -> str:
        return str(SERVED.get(path.partition("?")[0], HERE / "missing"))

    def guess_type(self, path: object) -> str:
        return "text/javascript" if str(path).endswith(".js") else "text/html; charset=utf-8"

    def log_message(self, format: str, *args: object) -> None:
        return
