"""A person, a browser and an app that uses the public SMART library: what the app gets is what the person may see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.browser.walk import TYPES, Walk

SCENARIOS = Path(__file__).parents[1] / "scenarios"
TWO_KINDS = "openid fhirUser launch/patient offline_access patient/Observation.rs patient/MedicationStatement.rs"


def expected(username: str, patient: str) -> dict[str, list[str]]:
    """Ids that the scenario file of this pair says are seen, by type."""
    scenario = yaml.safe_load((SCENARIOS / f"{username}__{patient}.yaml").read_text())
    return {type: sorted(scenario["types"][type]["sees"]) for type in TYPES}


@pytest.mark.parametrize(
    ("username", "patient"),
    [
        ("parent-a", "teen"),
        ("parent-a", "child"),
        ("proxy-standard", "adult"),
        ("proxy-full", "adult"),
        ("adult", "adult"),
    ],
)
def test_the_app_lists_exactly_what_the_person_may_see(walk: Walk, username: str, patient: str) -> None:
    walk.start().sign_in(username).pick(patient).allow()
    assert walk.seen() == expected(username, patient)
    assert walk.text("patient") == patient


def test_the_pairs_walked_do_not_all_see_the_same() -> None:
    assert expected("proxy-standard", "adult") != expected("adult", "adult")
    assert all(expected("parent-a", "teen").values())


def test_a_parent_is_offered_the_children_under_18_and_nobody_else(walk: Walk) -> None:
    offered = walk.start().sign_in("parent-a").offered()
    assert set(offered) == {"child", "teen"}
    assert "Your child, age 8" in offered["child"]
    assert "Your child, age 14" in offered["teen"]


def test_the_user_is_the_row_through_which_they_act_for_the_patient(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").allow()
    assert walk.text("user").endswith("RelatedPerson/parent-a-of-teen")


def test_a_proxy_whose_every_access_has_ended_is_told_so_and_can_go_back(walk: Walk, environment: dict[str, str]) -> None:
    add = ["user", "add", "lapsed", "--related-person", "parent-a-of-newly-adult", "--password", "Lapsed-pass-2026"]
    subprocess.run([sys.executable, "-m", "fhir_server", *add], env=environment, check=True, stdout=subprocess.DEVNULL)
    walk.start().sign_in("lapsed", "Lapsed-pass-2026")
    assert walk.one("h1").text == "No record to open"
    assert not walk.all("input[name=patient]")
    walk.deny()
    assert "access_denied" in walk.text("problem")


def test_the_back_button_shows_nothing_of_a_person_who_has_signed_out(walk: Walk) -> None:
    walk.visit("/sharing", "adult").visit("/account")
    walk.browser.back()
    assert "Alex Adult" in walk.reached("/sharing").one("body").text  # the control: going back does show pages again
    walk.browser.forward()
    walk.reached("/account").press(".who button")
    for _ in range(3):
        walk.browser.back()
        walk.until(lambda: not walk.browser.current_url.endswith("/signed-out") and bool(walk.all("main")))
        assert "Alex Adult" not in walk.one("body").text
        assert not walk.all(".who")


def test_an_app_that_is_not_allowed_learns_only_that(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").deny()
    assert walk.text("state") == "failed"
    assert "access_denied" in walk.text("problem")
    assert walk.text("token") == ""


def test_what_is_unticked_is_refused_and_the_rest_works(walk: Walk) -> None:
    walk.start(TWO_KINDS).sign_in("parent-a").pick("teen").untick("patient/MedicationStatement.rs").allow()
    assert walk.seen()["Observation"] == expected("parent-a", "teen")["Observation"]
    assert walk.status("MedicationStatement") == "403"
    assert "MedicationStatement" not in walk.text("scope")


def test_an_app_kept_from_offline_access_gets_no_refresh_token(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").untick("offline_access").allow()
    walk.one("#refresh").click()
    walk.until_done()
    assert walk.text("state") == "failed"


def test_the_refresh_token_gives_a_new_access_token_that_sees_the_same(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").allow()
    before = walk.text("token")
    walk.one("#refresh").click()
    walk.until_done()
    assert walk.seen() == expected("parent-a", "teen")
    assert walk.text("token") not in ("", before)


def test_a_wrong_password_is_explained_and_the_right_one_then_works(walk: Walk) -> None:
    walk.start().sign_in("parent-a", "Wrong-pass-2026")
    assert "not right" in walk.one("[role=alert]").text
    assert walk.one("#username").get_attribute("value") == "parent-a"
    assert set(walk.sign_in("parent-a").offered()) == {"child", "teen"}
