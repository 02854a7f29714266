"""The app of ``examples/home-readings``, unchanged: it reads the record and writes what the person says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from fhir_server.smart import demo
from tests.browser.browser_session import Walk
from tests.browser.conftest import Command
from tests.browser.static_app import served_folder

FOLDER = Path(__file__).parents[2] / "examples/home-readings"
SCOPE = "launch/patient patient/Patient.r patient/Observation.crs"


@pytest.fixture(scope="module")
def readings(command: Command) -> Iterator[str]:
    """The app's address.  The demo's registration of it names a port that another demo on this machine may have."""
    with served_folder(FOLDER) as origin:
        command("client", "add", "home-readings", "--name", "Home readings", "--redirect-uri", f"{origin}/", "--scope", SCOPE)
        yield f"{origin}/"


def connected(chrome: Chrome, origin: str, readings: str, username: str, patient: str) -> Walk:
    walk = Walk.fresh(chrome, origin)
    chrome.get(f"{readings}?{urlencode({'iss': f'{origin}/fhir'})}")
    walk.until(lambda: walk.one("#connect").is_displayed())
    walk.one("#connect").click()
    walk.reached("/sign-in").sign_in(username).pick(patient).reached("/oauth/consent")
    return walk


def opened(walk: Walk, readings: str) -> Walk:
    walk.press("button[value=allow]")
    walk.until_at(readings)
    walk.until(lambda: walk.one("#name").text != "" and walk.text("status") != "Loading.")
    return walk


def add(walk: Walk, value: str) -> str:
    """What the app says of the server's answer."""
    walk.browser.execute_script("document.getElementById('outcome').textContent = ''")
    walk.fill(value=value).one("#add button").click()
    walk.until(lambda: walk.text("outcome") != "")
    return walk.text("outcome")


@pytest.mark.parametrize(
    ("username", "patient", "performer"),
    [("adult", "adult", "Patient/adult"), ("parent-a", "child", "RelatedPerson/parent-a-of-child")],
)
def test_smart_113_app_reads_the_record_and_writes_the_persons_own_statement(
    chrome: Chrome, origin: str, command: Command, readings: str, username: str, patient: str, performer: str
) -> None:
    walk = opened(connected(chrome, origin, readings, username, patient), readings)
    assert "state=" not in chrome.current_url and "code=" not in chrome.current_url
    before = len(walk.all("#readings tr"))
    outcome = add(walk, "71.5")
    assert outcome.startswith("201: added as Observation/")
    walk.until(lambda: len(walk.all("#readings tr")) == min(before + 1, 10))
    assert "Body weight" in walk.one("#readings tr").text and "71.5 kg" in walk.one("#readings tr").text
    tags = {tag["code"] for tag in json.loads(walk.text("body"))["meta"]["tag"]}
    assert tags & {"patient-reported", "proxy-reported"} == {f"{'patient' if username == patient else 'proxy'}-reported"}

    url = f"{origin}/fhir/Observation/" + re.findall(r"Observation/(\S+)\.", outcome)[0]
    headers = {"Authorization": "Bearer " + command("token", "--client", "demo-backend", "--scope", "system/*.rd")}
    stored = httpx.get(url, headers=headers).json()
    assert httpx.delete(url, headers=headers).status_code == 204  # other tests know what is in the demo's records
    assert stored["valueQuantity"]["value"] == 71.5 and stored["performer"][0]["reference"] == performer
    assert stored["subject"]["reference"] == f"Patient/{patient}"


def test_smart_113_app_shows_that_its_access_has_ended(chrome: Chrome, origin: str, readings: str) -> None:
    walk = opened(connected(chrome, origin, readings, "adult", "adult"), readings)
    app = chrome.current_window_handle
    chrome.switch_to.new_window("tab")
    try:
        walk.visit("/apps")
        while rows := [row for row in walk.all("main li") if "Home readings" in row.text]:  # earlier tests' grants are among them
            document = walk.one("html")
            rows[0].find_element(By.TAG_NAME, "button").click()
            walk.until_left(document)
    finally:
        chrome.close()
        chrome.switch_to.window(app)
    assert add(walk, "72").startswith("401: refused.")


def test_smart_113_app_shows_that_access_was_not_allowed(chrome: Chrome, origin: str, readings: str) -> None:
    walk = connected(chrome, origin, readings, "adult", "adult")
    walk.press("button[value=deny]")
    walk.until_at(readings)
    walk.until(lambda: walk.text("status") == "You did not allow the access.")


def test_home_page_of_the_demo_lists_the_app_with_the_command_that_serves_it(walk: Walk) -> None:
    (name, address, command), *_ = demo.APPS_TO_TRY
    walk.visit("/")
    assert walk.one(f"a[href='{address}']").text == name
    assert command in walk.one("body").text and command.endswith(str(FOLDER.relative_to(FOLDER.parents[1])))
    assert command in (FOLDER / "README.md").read_text(encoding="utf-8")
