"""EHR launch: a clinician opens an app for a patient, with the server's pages and the SMART library."""

from __future__ import annotations

import httpx
import pytest
from selenium.webdriver.support.select import Select

from tests.browser.browser_session import APP, Walk
from tests.browser.conftest import Command
from tests.browser.test_standalone_launch import expected
from tests.smart.environment import Refresh

NAME = "Chart summary"


@pytest.fixture(scope="module")
def chart_app(command: Command) -> str:
    """Client id of an app that is registered for EHR launch."""
    command(
        *("client", "add", "chart-app", "--name", NAME, "--redirect-uri", f"{APP}/callback"),
        *("--launch-uri", f"{APP}/launch?app=chart-app", "--scope", "openid fhirUser launch user/*.rs"),
    )
    command("client", "approve-for-staff", "chart-app")
    return "chart-app"


def opened(walk: Walk, patient: str, app: str, visit: str = "") -> str:
    """Sign in, open the chart, launch the app, which is approved.  Returns the label of the chosen visit."""
    walk.browser.get(f"{walk.origin}/ehr")
    walk.sign_in("clinician").press(f"a[href='/ehr/{patient}']")
    offered = Select(walk.one("#encounter"))
    if visit:
        offered.select_by_value(visit)
    words = offered.first_selected_option.text
    walk.press(f"button[value={app}]")
    walk.until_done()
    return words


def test_app_opens_with_patient_and_encounter_of_the_chart(walk: Walk, chart_app: str) -> None:
    assert "2026" in opened(walk, "adult", chart_app, "adult-annual-visit")
    assert walk.text("problem") == ""
    assert walk.text("patient") == "adult" and walk.text("name") == "Adult"
    assert walk.text("encounter") == "adult-annual-visit" and walk.text("visit") == "Patient/adult"
    assert walk.text("banner") == "true"
    assert walk.text("user").endswith("Practitioner/dr-rivera")
    assert walk.seen() == expected("clinician", "adult")


def test_launch_without_encounter_gives_only_the_patient(walk: Walk, chart_app: str) -> None:
    opened(walk, "teen", chart_app)
    assert walk.text("patient") == "teen" and walk.text("name") == "Teen"
    assert walk.text("encounter") == ""
    assert walk.seen() == expected("clinician", "teen")


def test_charts_are_offered_to_clinicians_for_own_patients_only(walk: Walk) -> None:
    walk.browser.get(f"{walk.origin}/ehr")
    walk.sign_in("clinician")
    assert {"/ehr/adult", "/ehr/teen"} <= {link.get_dom_attribute("href") for link in walk.all(".entries a")}
    walk.browser.get(f"{walk.origin}/ehr/senior")
    assert "not among those of your patients" in walk.one(".lead").text
    Walk.fresh(walk.browser, walk.origin).browser.get(f"{walk.origin}/ehr")
    walk.sign_in("parent-a")
    assert "clinician's account" in walk.one(".lead").text


def test_launch_url_works_once(walk: Walk, chart_app: str) -> None:
    walk.browser.get(f"{walk.origin}/ehr/adult")
    walk.sign_in("clinician")
    walk.browser.get(f"{walk.origin}/ehr/adult")
    form = {"token": walk.one("form[action='/ehr'] input[name=token]").get_attribute("value"), "patient": "adult", "app": chart_app}
    cookies = {cookie["name"]: cookie["value"] for cookie in walk.browser.get_cookies()}
    onward = httpx.post(f"{walk.origin}/ehr", data=form, cookies=cookies).headers["location"]
    address = Refresh(httpx.get(f"{walk.origin}{onward}", cookies=cookies).text).url
    assert address.startswith(f"{APP}/launch?app=chart-app&iss=")
    walk.browser.get(address)
    walk.until_done()
    assert walk.text("patient") == "adult"
    walk.browser.get(address)
    walk.until_done()
    assert walk.text("state") == "failed" and walk.text("patient") == ""
