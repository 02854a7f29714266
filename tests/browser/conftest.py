"""One demo server, one app server and one browser for all browser tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.browser.browser_session import APP, Walk

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
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of the demo server, as environment variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SERVER_")}
    return outer | {
        "FHIR_SERVER_MODE": "demo",
        "FHIR_SERVER_ORIGIN": f"http://127.0.0.1:{port}",
        "FHIR_SERVER_STORE": f"sqlite:///{tmp_path_factory.mktemp('store')}/fhir.sqlite",
    }


@pytest.fixture(scope="session")
def origin(environment: dict[str, str]) -> Iterator[str]:
    """Origin of a demo server that runs as its own process."""
    address = environment["FHIR_SERVER_ORIGIN"]
    command = [sys.executable, "-m", "fhir_server", "demo", "--port", address.rpartition(":")[2]]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(address, server)
        yield address
    finally:
        server.terminate()
        server.wait(15)


@pytest.fixture(scope="session")
def command(environment: dict[str, str], origin: str) -> Command:
    """Run ``fhir-server`` with these arguments while the server runs, and return its output."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "fhir_server", *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    return run


@pytest.fixture
def app() -> Iterator[str]:
    """Origin of the SMART app's pages, which the demo client's redirect URIs require.

    One test at a time has it: where tests run in several processes, the others wait for their turn.
    """
    missing = [name for name, path in SERVED.items() if not path.is_file()]
    assert not missing, f"{missing} are missing: run `npm ci` in tests/browser (make test does)."
    with _app_server() as server:
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
    return Chrome(options, ChromeService(driver))


def _app_server() -> ThreadingHTTPServer:
    for _ in range(400):
        with suppress(OSError):
            return ThreadingHTTPServer(("127.0.0.1", 8765), _AppFiles)
        time.sleep(0.05)
    pytest.fail("Port 8765 must be free: the demo client's redirect URI names it.")


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, f"The demo server ended with {server.returncode}."
        try:
            httpx.get(f"{address}/fhir/metadata").raise_for_status()
            return
        except httpx.ConnectError:
            time.sleep(0.1)
    pytest.fail("The demo server did not answer within 30 seconds.")


class _AppFiles(SimpleHTTPRequestHandler):
    """The apps' pages and the client libraries."""

    def translate_path(self, path: str) -> str:
        return str(SERVED.get(path.partition("?")[0], HERE / "missing"))

    def guess_type(self, path: object) -> str:
        return "text/javascript" if str(path).endswith(".js") else "text/html; charset=utf-8"

    def log_message(self, format: str, *args: object) -> None:
        return
