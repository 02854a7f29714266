"""Standalone launch with an app that uses the public SMART library: the app gets what the user may see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.browser.browser_session import TYPES, Walk
from tests.browser.conftest import Command

SCENARIOS = Path(__file__).parents[1] / "scenarios"
TWO_KINDS = "openid fhirUser launch/patient offline_access patient/Observation.rs patient/MedicationStatement.rs"


def expected(username: str, patient: str) -> dict[str, list[str]]:
    """The visible ids in the scenario file of this user and patient, by type."""
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
def test_app_lists_exactly_the_persons_visible_resources(walk: Walk, username: str, patient: str) -> None:
    walk.start().sign_in(username).pick(patient).allow()
    assert walk.seen() == expected(username, patient)
    assert walk.text("patient") == patient


def test_tested_accounts_see_different_resources() -> None:
    assert expected("proxy-standard", "adult") != expected("adult", "adult")
    assert all(expected("parent-a", "teen").values())


def test_parent_is_offered_only_children_under_18(walk: Walk) -> None:
    offered = walk.start().sign_in("parent-a").offered()
    assert set(offered) == {"child", "teen"}
    assert "Your child, age 8" in offered["child"]
    assert "Your child, age 14" in offered["teen"]


def test_fhir_user_is_the_related_person_of_the_proxy(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").allow()
    assert walk.text("user").endswith("RelatedPerson/parent-a-of-teen")


@pytest.fixture
def lapsed(command: Command) -> Iterator[str]:
    """The password of the account ``lapsed``, which may open only the record of a person who is of age by now."""
    related, password = ("--related-person", "parent-a-of-newly-adult"), "Lapsed-pass-2026"
    command("user", "unlink", "parent-a", *related)
    command("user", "add", "lapsed", *related, "--password", password)
    yield password
    command("user", "remove", "lapsed")
    command("user", "link", "parent-a", *related, "--anyway")


def test_proxy_with_expired_access_sees_notice_and_can_deny(walk: Walk, lapsed: str) -> None:
    walk.start().sign_in("lapsed", lapsed)
    assert walk.one("h1").text == "No record to open"
    assert not walk.all("input[name=patient]")
    walk.deny()
    assert "access_denied" in walk.text("problem")


def test_back_button_shows_no_data_after_sign_out(walk: Walk) -> None:
    walk.visit("/sharing", "adult").visit("/account")
    walk.browser.back()
    assert "Alex Adult" in walk.reached("/sharing").one("body").text  # the control: the Back button shows pages again
    walk.browser.forward()
    walk.reached("/account").press(".who button")
    for _ in range(3):
        walk.browser.back()
        walk.until(lambda: not walk.browser.current_url.endswith("/signed-out") and bool(walk.all("main")))
        assert "Alex Adult" not in walk.one("body").text
        assert not walk.all(".who")


def test_denied_app_gets_only_access_denied(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").deny()
    assert walk.text("state") == "failed"
    assert "access_denied" in walk.text("problem")
    assert walk.text("token") == ""


def test_deselected_scope_returns_403_and_the_rest_works(walk: Walk) -> None:
    walk.start(TWO_KINDS).sign_in("parent-a").pick("teen").untick("patient/MedicationStatement.rs").allow()
    assert walk.seen()["Observation"] == expected("parent-a", "teen")["Observation"]
    assert walk.status("MedicationStatement") == "403"
    assert "MedicationStatement" not in walk.text("scope")


def test_app_without_offline_access_cannot_refresh(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").untick("offline_access").allow()
    walk.one("#refresh").click()
    walk.until_done()
    assert walk.text("state") == "failed"


def test_refresh_returns_a_new_token_with_the_same_access(walk: Walk) -> None:
    walk.start().sign_in("parent-a").pick("teen").allow()
    before = walk.text("token")
    walk.one("#refresh").click()
    walk.until_done()
    assert walk.seen() == expected("parent-a", "teen")
    assert walk.text("token") not in ("", before)


def test_wrong_password_shows_an_error_and_allows_a_retry(walk: Walk) -> None:
    walk.start().sign_in("parent-a", "Wrong-pass-2026")
    assert "is wrong" in walk.one("[role=alert]").text
    assert walk.one("#username").get_attribute("value") == "parent-a"
    assert set(walk.sign_in("parent-a").offered()) == {"child", "teen"}
