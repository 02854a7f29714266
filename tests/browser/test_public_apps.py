"""Public SMART apps, launched from the demo as they are published.

They are in no package registry.  ``SMART_APPS`` names a folder that has them, each under the name of its repository, and built if it has
to be built; an app that is not there is skipped.  A stand-in that loads its library as they do always runs.  The tests change one thing:
scripts from the content delivery network come from the npm package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from selenium.webdriver import Chrome

from tests.browser.browser_session import Walk
from tests.browser.conftest import MODULES, Command
from tests.browser.static_app import Replaced, served_folder

HERE = Path(__file__).parent
FOLDER = os.environ.get("SMART_APPS", "")
LIBRARY = "/fhir-client.js"
FROM_NETWORK = re.compile(rb"https://cdn\.jsdelivr\.net/npm/fhirclient(@[0-9.]+)?/build/fhir-client(\.min)?\.js")
READ = """
const fhir = arguments[0];
return performance.getEntriesByType("resource")
    .filter((entry) => entry.name.startsWith(fhir) && entry.responseStatus === 200).map((entry) => entry.name.slice(fhir.length));
"""


@dataclass(frozen=True)
class PublicApp:
    """``reads``: the types whose requests must have been answered with 200 when the app has opened."""

    folder: str
    reads: tuple[str, ...]
    username: str
    patient: str
    is_from_chart: bool = False
    launch: str = "launch.html"


STAND_IN = PublicApp("stand_in_app", ("Patient", "Observation"), "adult", "adult")
STAND_IN_CHART = PublicApp("stand_in_app", ("Patient", "Observation"), "clinician", "adult", is_from_chart=True)
PUBLIC = (
    PublicApp("growth-chart-app", ("Patient", "Observation"), "parent-a", "child"),
    PublicApp("cardiac-risk-app", ("Patient", "Observation"), "adult", "adult"),
    PublicApp("lforms-fhir-app", ("Patient",), "clinician", "adult", is_from_chart=True, launch="launch.html"),
    PublicApp("NAV-SMART-on-FHIR-example", ("Patient",), "clinician", "adult", is_from_chart=True, launch="launch"),
)


def published(app: PublicApp) -> Path:
    """The folder to serve: what was built, or the source of an app that needs no build."""
    if app.folder == STAND_IN.folder:
        return HERE / app.folder
    if not FOLDER:
        pytest.skip("SMART_APPS names no folder with public apps; no package registry has them.")
    source = Path(FOLDER) / app.folder
    if not source.is_dir():
        pytest.skip(f"{FOLDER} has no {app.folder}.")
    return next((source / built for built in ("dist", "build") if (source / built / "index.html").is_file()), source)


@contextmanager
def served(app: PublicApp) -> Iterator[str]:
    library = (MODULES / "fhirclient/build/fhir-client.js").read_bytes()
    with served_folder(published(app), Replaced({LIBRARY: library}, FROM_NETWORK, LIBRARY.encode())) as origin:
        yield origin


def register(walk: Walk, command: Command, app: PublicApp, launch: str) -> str:
    """Register the app as what it says it is when it first asks.  Returns its client id."""
    first = {"iss": f"{walk.origin}/fhir"} | ({"launch": "unknown"} if app.is_from_chart else {})
    walk.browser.get(f"{launch}?{urlencode(first)}")
    walk.reached("/oauth/authorize")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(walk.browser.current_url).query).items()}
    opened = ("--launch-uri", launch) if app.is_from_chart else ()
    named = ("--name", f"Public {app.folder}", "--redirect-uri", asked["redirect_uri"], "--scope", asked["scope"])
    command("client", "add", asked["client_id"], *named, *opened)
    if app.is_from_chart:
        command("client", "approve-for-staff", asked["client_id"])
    return asked["client_id"]


@pytest.mark.parametrize("app", [STAND_IN, STAND_IN_CHART, *PUBLIC], ids=lambda app: f"{app.folder} as {app.username}")
def test_public_app_opens_unchanged_and_reads_the_record(chrome: Chrome, origin: str, command: Command, app: PublicApp) -> None:
    walk = Walk.fresh(chrome, origin)
    with served(app) as at:
        launch = f"{at}/{app.launch}"
        client_id = register(walk, command, app, launch)
        try:
            if app.is_from_chart:
                walk.browser.get(f"{origin}/ehr")
                walk.sign_in(app.username).press(f"a[href='/ehr/{app.patient}']")
                walk.press(f"button[value='{client_id}']")
            else:
                chrome.get(f"{launch}?{urlencode({'iss': f'{origin}/fhir'})}")
                walk.reached("/sign-in").sign_in(app.username).pick(app.patient).reached("/oauth/consent").press("button[value=allow]")
            walk.until_at(at)
            walk.until(lambda: all(any(path.startswith(type) for path in read(walk)) for type in app.reads))
            assert any(path.startswith(f"Patient/{app.patient}") for path in read(walk))
        finally:
            command("client", "remove", client_id)


def read(walk: Walk) -> list[str]:
    """What the app's page has read of the server with success, relative to the FHIR base."""
    paths: list[str] = walk.browser.execute_script(READ, f"{walk.origin}/fhir/")
    return paths
