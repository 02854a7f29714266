"""Letting somebody in, and ending that."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.consent import policy
from fhir_server.portal import sharing
from fhir_server.portal.wording import describe_level
from fhir_server.resources import validate
from fhir_server.smart.core.context import DAY
from tests.portal.world import World, code_in

SHARED = "Shared with you"
NOT_YOURS = "You cannot change who may open a record from this account."


def let_in(world: World, **fields: str) -> tuple[str, str]:
    """Let proxy-standard in; the Consent's id and a token that proxy gave an app."""
    before = world.stored("Consent").keys()
    code = code_in(world.signed_in("adult").share(**fields))
    (consent,) = world.stored("Consent").keys() - before
    assert world.signed_in("proxy-standard").send("/accept", "/accept", code=code).status_code == 200
    return consent, world.token("proxy-standard", "adult")


def end(world: World, consent: str) -> int:
    adult = world.signed_in("adult")
    token = adult.get("/sharing").text.partition('name="token" value="')[2].partition('"')[0]
    return adult.post("/sharing/end", token=token, consent=consent).status_code


def test_who_was_let_in_finds_the_record_on_the_start_page_and_after_the_end_does_not(world: World) -> None:
    stranger = world.signed_in("proxy-standard")
    assert SHARED not in stranger.get("/").text
    consent, _ = let_in(world)
    proxy = world.signed_in("proxy-standard")
    assert "Alex Adult" in proxy.get("/").text and SHARED in proxy.get("/").text
    assert end(world, consent) == 303
    assert "Alex Adult" not in proxy.get("/").text


def test_ending_a_grant_ends_what_the_same_token_sees_at_the_next_request(world: World) -> None:
    consent, token = let_in(world)
    assert world.status(token) == 200
    assert end(world, consent) == 303
    assert world.status(token) == 404


def test_a_grant_nobody_has_taken_up_opens_nothing(world: World) -> None:
    adult = world.signed_in("adult")
    assert code_in(adult.share())
    assert world.status(world.token("proxy-standard", "adult")) == 404
    assert "Not used yet" in adult.get("/sharing").text


def test_a_grant_ends_by_itself_after_its_last_day(world: World) -> None:
    let_in(world, until="2026-11-22")
    assert "22 November 2026" in world.signed_in("adult").get("/sharing").text
    world.clock.forward(37 * DAY // 24 + DAY // 48)  # 23:30 of the last day in New York
    token = world.token("proxy-standard", "adult")
    assert world.status(token) == 200
    world.clock.forward(DAY // 48)
    assert world.status(token) == 404
    assert "Sam Standard" not in world.signed_in("adult").get("/sharing").text


def test_the_resources_of_a_grant_are_valid_and_shaped_like_the_seeds(world: World) -> None:
    like = world.stored("Consent")["proxy-full-of-adult"]
    consent, _ = let_in(world, level="full", until="2027-01-31")
    made = world.stored("Consent")[consent]
    grantee = made["provision"]["provision"][0]["actor"][0]["reference"]["reference"]
    person = world.stored("RelatedPerson")[grantee.removeprefix("RelatedPerson/")]
    assert validate.check("Consent", made) == () and validate.check("RelatedPerson", person) == ()
    for name in ("status", "scope", "category", "patient", "performer"):
        assert made[name] == like[name]
    assert made["meta"]["profile"] == like["meta"]["profile"]
    assert made["policy"][0]["uri"] == like["policy"][0]["uri"]
    permit, known = made["provision"]["provision"][0], like["provision"]["provision"][0]
    assert permit["type"] == "permit" and permit["actor"][0]["role"] == known["actor"][0]["role"]
    assert permit["period"] == {"start": "2026-11-21", "end": "2027-01-31"}
    assert person["active"] is True and person["name"] == [{"text": "Sam Standard"}]
    assert person["relationship"][0]["coding"][0]["code"] == "SIB"


def test_ending_writes_a_new_version_that_differs_in_its_status_alone(world: World) -> None:
    before = world.stored("Consent")["proxy-full-of-adult"]
    assert end(world, "proxy-full-of-adult") == 303
    after = world.stored("Consent")["proxy-full-of-adult"]
    assert (before.pop("status"), after.pop("status")) == ("active", "inactive")
    assert (before.pop("meta")["versionId"], after.pop("meta")["versionId"]) == ("1", "2")
    assert before == after
    assert "Fran Full" not in world.signed_in("adult").get("/sharing").text


@pytest.mark.parametrize("username", ["proxy-full", "parent-a", "clinician"])
def test_nobody_decides_about_a_record_that_is_not_their_own(world: World, username: str) -> None:
    other = world.signed_in(username)
    answer = other.get("/sharing")
    assert answer.status_code == 403 and NOT_YOURS in answer.text
    token = other.get("/accept").text.partition('name="token" value="')[2].partition('"')[0]
    sent = {"token": token, "once": "1", "name": "Eve", "level": "full", "patient": "adult", "consent": "proxy-full-of-adult"}
    before = world.stored("Consent"), world.stored("RelatedPerson")
    for action in ("/sharing", "/sharing/end", "/sharing/code"):
        assert other.post(action, **sent).status_code == 403
    assert (world.stored("Consent"), world.stored("RelatedPerson")) == before


def test_a_minor_with_an_account_cannot_share(world: World) -> None:
    assert world.signed_in("newly-adult").get("/sharing").status_code == 200
    world.clock.forward(-400 * DAY)
    young = world.signed_in("newly-adult")
    assert young.get("/sharing").status_code == 403


def test_an_adult_cannot_end_a_grant_on_another_record(world: World) -> None:
    assert end(world, "parent-a-of-child") == 400
    assert world.stored("Consent")["parent-a-of-child"]["status"] == "active"


def test_the_lapsed_grants_of_the_parents_are_not_shown_to_the_new_adult_as_access(world: World) -> None:
    assert "Nobody but you" in world.signed_in("newly-adult").get("/sharing").text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": " "}, sharing._NAME),
        ({"name": "x" * 101}, sharing._NAME),
        ({"name": "a\x00b"}, sharing._NAME),
        ({"level": "everything"}, sharing._LEVEL),
        ({"level": ""}, sharing._LEVEL),
        ({"until": "2026-11-20"}, sharing._UNTIL),
        ({"until": "tomorrow"}, sharing._UNTIL),
        ({"until": "9999-12-31"}, sharing._UNTIL),
    ],
)
def test_an_unclear_form_says_what_is_wrong_and_writes_nothing(world: World, fields: dict[str, str], text: str) -> None:
    before = world.stored("Consent")
    answer = world.signed_in("adult").share(**fields)
    assert answer.status_code == 400 and text.replace("'", "&#39;") in answer.text
    assert world.stored("Consent") == before


def test_a_name_is_shown_as_text_whatever_it_holds(world: World) -> None:
    adult = world.signed_in("adult")
    assert "<b>Bob" not in adult.share(name="<b>Bob").text
    assert "&lt;b&gt;Bob" in adult.get("/sharing").text


def test_the_same_form_sent_twice_lets_one_person_in(world: World) -> None:
    adult = world.signed_in("adult")
    page = adult.get("/sharing").text
    token, once = (page.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("token", "once"))
    sent = {"token": token, "once": once, "name": "Sam", "level": "standard"}
    before = len(world.stored("Consent"))
    assert [adult.post("/sharing", **sent).status_code for _ in range(2)] == [200, 400]
    assert len(world.stored("Consent")) == before + 1


@pytest.mark.parametrize("action", ["/sharing", "/sharing/end", "/sharing/code", "/accept", "/apps"])
def test_a_form_without_this_browsers_token_is_refused(world: World, action: str) -> None:
    adult = world.signed_in("adult")
    sent = {"once": "1", "name": "Eve", "level": "full", "consent": "proxy-full-of-adult", "code": "x", "app": "x"}
    before = world.stored("Consent")
    assert adult.post(action, **sent).status_code == 403
    assert adult.post(action, **sent, token="0" * 64).status_code == 403
    assert world.stored("Consent") == before


@pytest.mark.parametrize("path", ["/sharing", "/accept", "/apps"])
def test_who_is_not_signed_in_is_sent_to_sign_in_and_comes_back(world: World, path: str) -> None:
    answer = world.visitor().get(path)
    assert answer.status_code == 303 and answer.headers["location"] == f"/sign-in?next=%2F{path[1:]}"


def test_pages_are_never_stored_nor_framed_and_run_no_scripts(world: World) -> None:
    adult = world.signed_in("adult")
    for path in ("/", "/sharing", "/accept", "/apps"):
        answer = adult.get(path)
        assert answer.status_code == 200 and "<script" not in answer.text
        assert answer.headers["cache-control"] == "no-store" and "default-src 'none'" in answer.headers["content-security-policy"]
    assert world.visitor().get("/portal.css").headers["content-type"].startswith("text/css")


def test_the_start_page_shows_a_stranger_the_way_in_and_no_record(world: World) -> None:
    page = world.visitor().get("/")
    assert page.status_code == 200 and 'href="/sign-in"' in page.text and "Alex Adult" not in page.text


def test_a_record_is_shared_with_a_bounded_number_of_people(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MOST", 2)
    adult = world.signed_in("adult")
    assert [adult.share().status_code for _ in range(2)] == [200, 400]


def test_the_words_for_a_level_follow_the_policy() -> None:
    assert "Leaves out" not in describe_level(policy.load("optum"), "full")
    assert "sensitive" in describe_level(policy.load("ssm"), "full").partition("Leaves out")[2]
    for name in ("optum", "ssm", "strict"):
        left_out = describe_level(policy.load(name), "standard").partition("Leaves out")[2]
        assert "sensitive" in left_out and "notes" in left_out and "visits" not in left_out


def test_a_grant_is_judged_in_the_transaction_that_writes_it(world: World) -> None:
    """An adult whose record is closed between the page and the form (here: recorded as dead) grants nothing."""
    adult = world.signed_in("adult")
    page = adult.get("/sharing").text
    token, once = (page.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("token", "once"))
    asyncio.run(world.change("Patient", "adult", {"deceasedBoolean": True}))
    before = world.stored("Consent")
    assert adult.post("/sharing", token=token, once=once, name="Eve", level="full").status_code == 403
    assert world.stored("Consent") == before
