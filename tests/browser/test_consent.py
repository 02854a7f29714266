"""The app gets what the user selects on the consent page, until the user ends access."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.browser.browser_session import APP, Walk
from tests.browser.test_standalone_launch import expected

KINDS = "openid fhirUser launch/patient offline_access patient/Observation.rs patient/MedicationStatement.rs patient/Patient.rs"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
HIV = {"adult-hiv-screen", "adult-hiv-viral-load", "adult-hiv-prevention"}
# unclassified, also with another label or because the code needs a second signal; withheld with any category
UNSORTED = {
    *("adult-unclassified-lab", "adult-unclassified-medication", "adult-doxycycline"),
    *("adult-unclassified-visit", "adult-tobacco"),
}


def opened(walk: Walk) -> Walk:
    """The consent page with all details open."""
    walk.until_at(f"{walk.origin}/oauth/consent")
    for summary in walk.all("summary"):
        summary.click()
    return walk


def test_chosen_categories_limit_the_apps_observations(walk: Walk) -> None:
    opened(walk.start(KINDS).sign_in("adult").pick("adult"))
    walk.one(f"input[name=part][value$='{CATEGORY}|vital-signs']").click()
    walk.one(f"input[name=part][value$='{CATEGORY}|social-history']").click()
    walk.allow()
    assert walk.seen()["Observation"] == ["adult-blood-pressure", "adult-body-temperature", "adult-body-weight", "adult-tobacco"]
    assert walk.seen()["MedicationStatement"] == expected("adult", "adult")["MedicationStatement"]
    granted = walk.text("scope").split()
    assert f"patient/Observation.rs?category={CATEGORY}|vital-signs" in granted
    assert "patient/Observation.rs" not in granted
    assert walk.status("Appointment") == "403"


def test_withheld_category_is_invisible_to_the_app(walk: Walk) -> None:
    opened(walk.start().sign_in("adult").pick("adult"))
    walk.one("#withhold-HIV").click()
    walk.allow()
    whole, seen = expected("adult", "adult"), walk.seen()
    missing = {id for type, ids in whole.items() for id in ids} - {id for ids in seen.values() for id in ids}
    assert missing == HIV | UNSORTED
    assert "adult-syphilis" in seen["Observation"]
    assert walk.fetched("Observation/adult-hiv-screen", walk.text("token")) == 404
    assert walk.fetched("Observation/adult-syphilis", walk.text("token")) == 200
    walk.refreshed()
    assert walk.seen() == seen


def test_consent_page_shows_duration_and_offline_access_is_optional(walk: Walk) -> None:
    walk.start().sign_in("adult").pick("adult")
    walk.until_at(f"{walk.origin}/oauth/consent")
    note = walk.one("#offline-note").text
    assert "92 days" in note and "one hour" in note
    walk.one("#offline").click()
    walk.allow()
    assert walk.text("renewal") == "" and walk.text("token")
    assert "offline_access" not in walk.text("scope")


def test_allowed_app_is_listed_before_it_requests_a_token(walk: Walk) -> None:
    walk.ask().sign_in("newly-adult").pick("newly-adult").press("button[value=allow]")
    entry = walk.visit("/apps").one(".entries").text
    assert "Noor Newly" in entry and f" {datetime.now(UTC).year}" in entry.partition("Connected since")[2]


def test_ending_app_access_in_another_tab_is_immediate(walk: Walk) -> None:
    opened(walk.start().sign_in("proxy-full").pick("adult"))
    walk.one("#withhold-GENETIC").click()
    walk.allow()
    token, app = walk.text("token"), walk.browser.current_window_handle
    assert walk.fetched("Patient/adult", token) == 200
    walk.browser.switch_to.new_window("tab")
    walk.browser.get(f"{walk.origin}/apps")
    entry = walk.one(".entries").text
    assert "Demo phone app" in entry and "Alex Adult" in entry and "Not shared\nGenetic tests" in entry
    walk.press(".entries button")
    assert "no connected apps" in walk.one(".lead").text
    walk.browser.close()
    walk.browser.switch_to.window(app)
    assert walk.browser.current_url.startswith(APP)
    assert walk.fetched("Patient/adult", token) == 401
    assert walk.refreshed().text("state") == "failed"
